"""Runs the cells of settings in several processes, each finished one kept at once."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch

from kd_det.bench.cells import Cell, Cells
from kd_det.bench.display import Display
from kd_det.bench.ledger import Ledger
from kd_det.bench.machine import processor, versions
from kd_det.bench.setting import ROOT, Setting, leaves
from kd_det.datasets.synthetic import SyntheticSpec, write_synthetic
from kd_det.errors import ConfigError, did_you_mean

__all__ = ['BenchOptions', 'run_settings']


@dataclass
class BenchOptions:
    """How settings are run.

    Args:
        work_dir: Where weights and logs go, a folder per setting.
        results: The JSON lines.
        jobs: Processes side by side, on each GPU or on the CPU.
        gpus: What ``CUDA_VISIBLE_DEVICES`` may name; empty for the CPU.
        threads: Of torch in each process; None to share the cores out.
        weights: ``'published'``, ``'tuned'`` or ``'both'``.
        only: Run only cells whose names begin so, and what they need.
        dry_run: List the cells and stop.
    """

    work_dir: Path
    results: Path
    jobs: int = 1
    gpus: tuple[str, ...] = ()
    threads: int | None = None
    weights: str = 'both'
    only: tuple[str, ...] = ()
    dry_run: bool = False

    def slots(self) -> list[str | None]:
        """What each process may use: a GPU, or None."""
        return [gpu for _ in range(self.jobs) for gpu in self.gpus] if self.gpus else [None] * self.jobs


@dataclass
class _Running:
    cell: Cell
    process: Any
    out: Any
    parent: Any
    steps: Any
    slot: str | None
    units: float


def prepare_data(setting: Setting) -> bool:
    """Draw the synthetic set of a setting, if it has one and it is not there; returns whether it was drawn."""
    return setting.synthetic is not None and write_synthetic(setting.data_root, SyntheticSpec(**setting.synthetic))


def _hardware(gpu: str | None, threads: int) -> dict[str, Any]:
    name = None
    if gpu is not None:
        shown = subprocess.run(
            ['nvidia-smi', '--query-gpu=name', '--format=csv,noheader', '-i', gpu], capture_output=True, text=True
        )
        name = shown.stdout.strip() or 'GPU'
    return dict(cpu=processor(), cores=os.cpu_count(), threads=threads, gpu=name)


def _commit() -> str:
    """The commit of the sources, with a mark where they differ from it; empty outside a repository."""
    try:
        head = subprocess.run(['git', 'rev-parse', '--short=12', 'HEAD'], cwd=ROOT, capture_output=True, text=True)
        dirty = subprocess.run(
            ['git', 'status', '--porcelain', '--', 'kd_det', 'configs'], cwd=ROOT, capture_output=True, text=True
        )
    except OSError:
        return ''
    return '' if head.returncode else head.stdout.strip() + ('+changes' if dirty.stdout.strip() else '')


class _Bench:
    def __init__(self, settings: Sequence[Setting], options: BenchOptions, display: Display) -> None:
        self.settings, self.options, self.display = list(settings), options, display
        self.ledger = Ledger(options.results)
        self.slots = options.slots()
        self.commit = _commit()  # of what is imported now, whatever is edited while it runs
        self.threads = options.threads or max(1, (os.cpu_count() or 1) // len(self.slots))
        device = 'cuda' if options.gpus else 'cpu'
        self.cells = {s.name: Cells(s, options.work_dir / s.name, device) for s in settings}
        self.failed: dict[tuple[str, str], str] = {}
        self.running: list[_Running] = []
        self.spent: dict[tuple[str, str], list[float]] = {}
        self.finished = 0
        for record in self.ledger.records():
            self._learn(record)

    # --- what there is to do ------------------------------------------------------------------------------------------

    def todo(self) -> tuple[list[Cell], int]:
        """Cells that are not finished, in order, and how many are."""
        missing, done = [], 0
        for setting in self.settings:
            cells = self.cells[setting.name]
            listed = cells.all(self.ledger.records(setting.name), self.options.weights)
            by_name = {cell.name: cell for cell in listed}
            if self.options.only:
                listed = [c for c in listed if _under(c.name, self.options.only)]
                listed += [c for c in map(cells.named, self.options.only) if c is not None and c not in listed]
            unmet = [c for c in listed if self._record(c) is None]
            done += len(listed) - len(unmet)
            wanted: dict[str, Cell] = {}
            for cell in unmet:
                self._with_needs(cell, by_name, wanted)
            missing += [c for c in wanted.values()]
        return missing, done

    def check_only(self) -> None:
        """Refuse what ``only`` names and no cell is called.

        Raises:
            ConfigError: For the first such name.
        """
        for given in self.options.only:
            names: list[str] = []
            for setting in self.settings:
                cells = self.cells[setting.name]
                names += [cell.name for cell in cells.all(self.ledger.records(setting.name), self.options.weights)]
                names += [given] if cells.named(given) is not None else []
            if not any(_under(name, (given,)) for name in names):
                known = dict.fromkeys([*(name.split('/')[0] for name in names), *names])
                raise ConfigError(f'--only: no cell is called {given!r} by now.{did_you_mean(given, known)}')

    def _record(self, cell: Cell) -> dict | None:
        """Its record, unless it learnt from a teacher that has been trained anew, to other weights, since."""
        record = self.ledger.find(cell.facts['setting'], cell.name, cell.digest)
        known = (record or {}).get('teacher_weights')
        return None if known and known != self._teacher_weights(cell, known) else record

    def _teacher_weights(self, cell: Cell, otherwise: str | None = None) -> str | None:
        """Fingerprint of the weights that a cell learns from."""
        name = next((name for name in cell.needs if name.startswith(('teacher/', 'plain/'))), None)
        if name is None:
            return otherwise
        source = self.cells[cell.facts['setting']]._made[name]
        record = self.ledger.find(cell.facts['setting'], name, source.digest) or {}
        return record.get('weights') or otherwise

    def _with_needs(self, cell: Cell, known: dict[str, Cell], wanted: dict[str, Cell]) -> None:
        """Put a cell after those whose weights it needs; one that is recorded but whose weights are gone runs again."""
        if cell.name in wanted:
            return
        for name in cell.needs:
            need = known.get(name) or self.cells[cell.facts['setting']]._made[name]
            if not self._ready(need):
                self._with_needs(need, known, wanted)
        wanted[cell.name] = cell

    def _ready(self, cell: Cell) -> bool:
        """Whether its weights can be read."""
        there = cell.job.given is not None or Path(cell.weights).is_file()
        record = self._record(cell)
        return there and record is not None and not record['diverged']  # one that diverged teaches nothing

    # --- time ---------------------------------------------------------------------------------------------------------

    def _learn(self, record: dict) -> None:
        images = record['steps'] * record['batch_size']
        if images and record['train_seconds'] and not record['diverged']:  # of a broken epoch none are counted
            key = (record['setting'], 'distilled' if record.get('distill') else record['kind'])
            self.spent.setdefault(key, []).append(record['train_seconds'] / images)

    def cost(self, cell: Cell) -> float:
        """Seconds that a cell will take: from finished ones of its kind, else of any, else a guess."""
        kind = 'distilled' if cell.facts['distill'] else cell.facts['kind']
        known = self.spent.get((cell.facts['setting'], kind)) or [x for v in self.spent.values() for x in v] or [0.01]
        return max(1.0, cell.images * statistics.median(known))

    def _expected(self) -> float:
        """Seconds of tuned cells that cannot be named yet."""
        total = 0.0
        for setting in self.settings:
            if setting.tune is None or self.options.weights == 'published' or self.options.only:
                continue
            cells, records = self.cells[setting.name], self.ledger.records(setting.name)
            for method in setting.methods.values():
                if cells.chosen(method, records) is None:
                    others = (*setting.random_teacher, *setting.shuffled_teacher, setting.self_distilled)
                    runs = len(setting.seeds) * (1 + others.count(method.name))
                    total += runs * self.cost(cells.method(method, 1.0, setting.seeds[0]))
        return total

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        context = multiprocessing.get_context('spawn' if self.options.gpus else 'forkserver')
        if not self.options.gpus:
            os.environ['CUDA_VISIBLE_DEVICES'] = ''  # before the server's imports ask for GPUs
        if not self.options.gpus:
            context.set_forkserver_preload(['kd_det.bench.worker'])
        try:
            while True:
                missing, done = self.todo()
                busy = {(r.cell.facts['setting'], r.cell.name) for r in self.running}
                waiting = [c for c in missing if (c.facts['setting'], c.name) not in busy | self.failed.keys()]
                self._plan(waiting, done)
                free = list(self.slots)
                for each in self.running:
                    free.remove(each.slot)
                for cell in waiting:
                    if not free:
                        break
                    if self._can_start(cell):
                        self._start(context, cell, free.pop(0))
                if not self.running:
                    for cell in waiting:  # what they need failed
                        self.failed[cell.facts['setting'], cell.name] = 'a run that it needs failed'
                    return
                self._wait()
        finally:
            for each in self.running:
                each.process.terminate()
            for each in self.running:
                each.process.join(10)

    def _can_start(self, cell: Cell) -> bool:
        cells = self.cells[cell.facts['setting']]
        return all(self._ready(cells._made[name]) for name in cell.needs)

    def _start(self, context: Any, cell: Cell, slot: str | None) -> None:
        from kd_det.bench.worker import work

        receive, send = context.Pipe(duplex=False)
        theirs, ours = context.Pipe(duplex=False)
        steps = context.Value('l', 0, lock=False)
        shutil.rmtree(cell.job.part.folder, ignore_errors=True)
        process = context.Process(target=work, args=(cell.job, self.threads, slot, steps, send, theirs))
        if slot is not None:
            os.environ['CUDA_VISIBLE_DEVICES'] = slot  # a spawned process has it before it imports anything
        process.start()
        send.close()
        theirs.close()
        self.running.append(_Running(cell, process, receive, ours, steps, slot, self.cost(cell)))

    def _wait(self) -> None:
        """Until one process is done; shows progress meanwhile."""
        while True:
            self._show()
            connections = [each.out for each in self.running]
            ready = multiprocessing.connection.wait(connections, timeout=1.0)
            for each in [r for r in self.running if r.out in ready]:
                self.running.remove(each)
                try:
                    state, result = each.out.recv()
                except EOFError:
                    each.process.join()
                    state, result = 'failed', f'its process ended with status {each.process.exitcode}'
                each.process.join(30)
                self._finish(each, state, result)
            if ready:
                return

    def _finish(self, each: _Running, state: str, result: Any) -> None:
        cell = each.cell
        name = f'{cell.facts["setting"]}: {cell.name}'
        if state == 'failed':
            self.failed[cell.facts['setting'], cell.name] = result
            self.display.say(f'FAILED {name}: {result} (see {cell.job.part.folder}/console.log)')
            return
        old = self._record(cell)
        record = self._complete(cell, result, each.slot)
        if old is not None and old['metrics'] != record['metrics']:
            self.display.say(
                f'{name}: trained again, because its weights were gone; mAP {old["metrics"].get("mAP")} became '
                f'{record["metrics"].get("mAP")}'
            )
        self.ledger.add(record)
        self._learn(record)
        self.finished += each.units
        figure = f'mAP {100 * record["metrics"]["mAP"]:.1f}' if record['metrics'] else 'done'
        figure += ' (diverged)' if record['diverged'] else ''
        self.display.say(f'[{self._left()}] {name}: {figure}, {record["train_seconds"]:.0f} s')

    def _complete(self, cell: Cell, result: dict, slot: str | None) -> dict:
        setting = next(s for s in self.settings if s.name == cell.facts['setting'])
        cfg = setting.config('student')
        cells = self.cells[setting.name]
        pair = dict(
            title=setting.title,
            teacher=_shown(setting.teacher),
            student=_shown(setting.student),
            teacher_checkpoint=setting.teacher_checkpoint,
            inherit=list(setting.inherit),
            data=Path(setting.data_root or leaves(cfg.train_dataloader.dataset)[0].get('data_root') or '').name,
            train_images=cells._count(cfg),
            val_images=cells._count(cfg, 'val_dataloader'),
            synthetic=setting.synthetic,
            options=setting.options,
        )
        dropped = ('name', 'digest', 'seed', 'reused', 'seconds', 'threads')
        measured = {k: v for k, v in result.items() if k not in dropped}
        threads = result.get('threads', self.threads)
        return dict(
            **cell.facts,
            **measured,
            teacher_weights=self._teacher_weights(cell),
            pair=pair,
            tune=setting.tune if cell.facts['kind'] == 'tune' else None,
            versions=versions(),
            hardware=_hardware(slot, threads),
            commit=self.commit,
            finished=time.strftime('%Y-%m-%dT%H:%M:%S%z'),
            repeat=f'python tools/kd_bench.py {setting.source} --only {cell.name} --threads {threads}'
            + (f' --gpus {slot}' if slot is not None else ''),
        )

    # --- progress -----------------------------------------------------------------------------------------------------

    def _plan(self, waiting: list[Cell], done: int) -> None:
        running = sum(each.units for each in self.running)
        self.display.total = self.finished + running + sum(map(self.cost, waiting)) + self._expected()
        self.counts = (done, len(waiting) + len(self.running))

    def _shares(self) -> list[float]:
        return [
            min(1.0, each.steps.value * each.cell.facts['batch_size'] / max(each.cell.images, 1))
            for each in self.running
        ]

    def _left(self) -> str:
        done = self.finished + sum(share * each.units for share, each in zip(self._shares(), self.running))
        left = max(0.0, self.display.total - done) / len(self.slots)
        finished, open_ = self.counts
        return f'{finished + 1} of {finished + open_}, about {int(left) // 60}:{int(left) % 60:02d} left'

    def _show(self) -> None:
        parts = [f'{each.cell.name} {share:.0%}' for share, each in zip(self._shares(), self.running)]
        self.display.done = self.finished + sum(s * each.units for s, each in zip(self._shares(), self.running))
        self.display.start(', '.join(parts))


def _under(name: str, given: Sequence[str]) -> bool:
    """Whether a cell's name is one of those given, or lies under one: ``fgd`` has ``fgd/x1/seed0``."""
    return any(name == each or name.startswith(f'{each.rstrip("/")}/') for each in given)


def _shown(path: Path) -> str:
    """A path as a reader of the repository knows it."""
    path = Path(path).resolve()
    if path.is_relative_to(ROOT):
        return str(path.relative_to(ROOT))
    if '.mim' in path.parts:
        at = path.parts.index('.mim')
        return f'{path.parts[at - 1]}::{"/".join(path.parts[at + 2 :])}'
    return path.name


def _lock(folder: Path) -> TextIO:
    """One harness at a time in a folder.

    Raises:
        ConfigError: If another one is running there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = open(folder / '.lock', 'w')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigError(f"--work-dir: another run works in '{folder}'; expected a folder of its own.") from error
    return file


def run_settings(
    settings: Sequence[Setting], options: BenchOptions, display: Display | None = None
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], str]]:
    """Run what is not finished.

    Args:
        settings: The settings; one after the other where processes are fewer than cells.
        options: How.
        display: Where to show progress; standard output if None.

    Returns:
        All records of the results file, and why cells failed: (setting, cell) → text.

    Raises:
        KDDetError: For what is wrong with settings, data or results.
    """
    if options.jobs < 1:
        raise ConfigError(f'--jobs: found {options.jobs}, expected at least 1.')
    names = [s.name for s in settings]
    if len(set(names)) < len(names):
        raise ConfigError(f'settings: found {names}, expected different names.')
    if options.gpus and not torch.cuda.is_available():
        raise ConfigError(f'--gpus: found {" ".join(options.gpus)}, but torch sees no GPU; leave it out for the CPU.')
    lock = _lock(Path(options.work_dir))
    try:
        with display or Display() as display:
            for setting in settings:
                if prepare_data(setting):
                    display.say(f'Drew the synthetic set in {setting.data_root}')
            bench = _Bench(settings, options, display)
            bench.check_only()
            if options.dry_run:
                missing, done = bench.todo()
                for cell in missing:
                    display.say(f'{cell.facts["setting"]}: {cell.name}  (about {bench.cost(cell):.0f} s)')
                display.say(f'{done} finished, {len(missing)} to run')
            else:
                bench.run()
            return bench.ledger.records(), bench.failed
    finally:
        lock.close()
