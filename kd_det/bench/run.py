"""Runs the cells of settings in several processes, each finished one kept at once."""

from __future__ import annotations

import fcntl
import itertools
import json
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
from mmengine.utils import import_modules_from_strings

from kd_det.bench.catalogue import parts_of
from kd_det.bench.cells import DATA_ROOT, Cell, Cells
from kd_det.bench.display import Display, hours
from kd_det.bench.ledger import Ledger
from kd_det.bench.machine import processor, versions
from kd_det.bench.setting import ROOT, Setting, known_methods, leaves
from kd_det.datasets.synthetic import SyntheticSpec, write_synthetic
from kd_det.errors import ConfigError, KDDetError, did_you_mean
from kd_det.registry import MODELS

__all__ = ['BenchOptions', 'run_settings']

#: Guesses until finished runs say better: seconds of a process besides its steps (start, weights, evaluation), those of
#: a plain step on one image, and how many plain steps a distilled one takes.
_AROUND, _PER_IMAGE, _DISTILLED = 10.0, 0.01, 2.0


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
        dry_run: List the cells, check them and stop.
        check: Build each method before anything runs, to see whether it fits the two networks.
    """

    work_dir: Path
    results: Path
    jobs: int = 1
    gpus: tuple[str, ...] = ()
    threads: int | None = None
    weights: str = 'both'
    only: tuple[str, ...] = ()
    dry_run: bool = False
    check: bool = True

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
    began: float


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
        self.cells = {s.name: Cells(s, options.work_dir / s.name, device, options.weights) for s in settings}
        self.failed: dict[tuple[str, str], str] = {}
        self.running: list[_Running] = []
        #: Seconds per image by setting and kind, and of distilled runs by setting and method, too; and what a process
        #: takes besides, by setting.
        self.spent: dict[tuple[str, str], list[float]] = {}
        self.spent_by_method: dict[tuple[str, str], list[float]] = {}
        self.around: dict[str, list[float]] = {}
        self.finished = 0
        for record in self.ledger.records():
            self._learn(record)

    # --- what there is to do ------------------------------------------------------------------------------------------

    def todo(self) -> tuple[list[Cell], int]:
        """Cells that are not finished, in order, and how many are."""
        missing, done = [], 0
        for setting in self.settings:
            cells = self.cells[setting.name]
            listed = cells.all(self.ledger.records(setting.name))
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
                names += [cell.name for cell in cells.all(self.ledger.records(setting.name))]
                names += [given] if cells.named(given) is not None else []
            if not any(_under(name, (given,)) for name in names):
                known = dict.fromkeys([*(name.split('/')[0] for name in names), *names])
                methods = list(dict.fromkeys(name for setting in self.settings for name in setting.methods))
                others = {*known_methods(), *(name for setting in self.settings for name in setting.left_out)}
                parts = [part for part in given.split('/') if part not in methods]
                other = next((part for part in parts if {*parts_of(part)} <= others | {*methods}), None)
                if other is not None:
                    raise ConfigError(
                        f'--only: {given!r}: {other!r} is not among --methods, or those of the setting: '
                        f'{", ".join(methods)}.'
                    )
                raise ConfigError(f'--only: no cell is called {given!r} by now.{did_you_mean(given, known)}')

    def announce(self, missing: Sequence[Cell], done: int) -> None:
        """Show what there is to run, and for how long."""
        costs, later = [self.cost(cell) for cell in missing], self._expected()
        for cell, seconds in zip(missing, costs):
            self.display.say(f'{cell.facts["setting"]}: {cell.name}  (about {hours(seconds)})')
        text = f'{done} finished, {len(missing)} to run'
        text += f' and {len(later)} that tuning has yet to name' if later else ''
        if missing:
            total = max(sum(costs + later) / len(self.slots), *costs)
            text += f', about {hours(total)} in all with --jobs {self.options.jobs}'
            text += f' on each of {len(self.options.gpus)} GPUs' if len(self.options.gpus) > 1 else ''
        unknown = {cell.facts['setting'] for cell in missing} - {name for name, _ in self.spent}
        text += f' (a guess, perhaps far off: no run of {", ".join(sorted(unknown))} is finished)' if unknown else ''
        self.display.say(text)

    def check(self, missing: Sequence[Cell]) -> None:
        """Look at annotation files and evaluators, and build each method that has cells to run.

        Raises:
            ConfigError: For all that cannot run, at once.
        """
        problems: list[str] = []
        for setting in self.settings:
            cells, mine = self.cells[setting.name], [c for c in missing if c.facts['setting'] == setting.name]
            if not mine:
                continue
            absent = [f"'{path}' does not exist. {DATA_ROOT}" for path in cells.absent()]
            import_modules_from_strings(cells.imports)
            problems += [f'{setting.name}: {problem}' for problem in absent or cells.not_alike()]
            names = list(dict.fromkeys(c.facts['method'] for c in mine if c.facts['method']))
            if not names:
                continue
            self.display.say(f'{setting.name}: checking whether {", ".join(names)} fit (--no-check leaves this out)')
            reasons: dict[str, list[str]] = {}
            for name in names:
                text = _misfit(cells, name)
                if text is not None:
                    reasons.setdefault(text, []).append(name)
            problems += [f'{setting.name}: {", ".join(those)}: {text}' for text, those in reasons.items()]
        if problems:
            lines = [problem.replace('\n', '\n  ') for problem in problems]
            what = f'{lines[0]} ' if len(lines) == 1 else '\n- '.join([f'{len(lines)} errors:', *lines]) + '\n'
            raise ConfigError(f'{what}--no-check lets the others run.')

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
            distilled, each = bool(record.get('distill')), record['train_seconds'] / images
            key = (record['setting'], 'distilled' if distilled else record['kind'])
            self.spent.setdefault(key, []).append(each)
            if distilled:
                self.spent_by_method.setdefault((record['setting'], record.get('method')), []).append(each)
        if record.get('wall_seconds') is not None:
            around = max(0.0, record['wall_seconds'] - record['train_seconds'])
            self.around.setdefault(record['setting'], []).append(around)

    def cost(self, cell: Cell) -> float:
        """Seconds that a cell will take: from finished ones of its kind, else of any, else a guess."""
        known = self.around.get(cell.facts['setting']) or [x for each in self.around.values() for x in each]
        around = statistics.median(known) if known else _AROUND
        return max(1.0, around + cell.images * self._per_image(cell))

    def _per_image(self, cell: Cell) -> float:
        setting, distilled = cell.facts['setting'], bool(cell.facts['distill'])
        kinds = ('distilled',) if distilled else (cell.facts['kind'], 'student', 'tune')
        near = [self.spent.get((setting, kind)) for kind in kinds]
        if distilled:
            near.insert(0, self.spent_by_method.get((setting, cell.facts['method'])))
        for known in filter(None, near):
            return statistics.median(known)
        plain = {
            key: [x / (_DISTILLED if key[1] == 'distilled' else 1.0) for x in each] for key, each in self.spent.items()
        }
        here = [x for (name, _), each in plain.items() if name == setting for x in each]
        known = here or [x for each in plain.values() for x in each] or [_PER_IMAGE]
        return statistics.median(known) * (_DISTILLED if distilled else 1.0)

    def _expected(self) -> list[float]:
        """Seconds of each tuned cell that cannot be named yet."""
        total: list[float] = []
        for setting in self.settings:
            if setting.tune is None or self.options.weights == 'published' or self.options.only:
                continue
            cells, records = self.cells[setting.name], self.ledger.records(setting.name)
            for method in setting.methods.values():
                if cells.chosen(method, records) is None:
                    others = (*setting.random_teacher, *setting.shuffled_teacher, setting.self_distilled)
                    runs = len(setting.seeds) * (1 + others.count(method.name))
                    total += [self.cost(cells.method(method, 1.0, setting.seeds[0]))] * runs
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
        folder, name = cell.job.part.folder, f'{cell.facts["setting"]}: {cell.name}'
        kept = _put_aside(folder)
        if kept is not None:
            self.display.say(f'{name}: what an earlier run left is kept in {kept}')
        self.display.say(f'running {name}, log {folder}/console.log')
        process = context.Process(target=work, args=(cell.job, self.threads, slot, steps, send, theirs))
        if slot is not None:
            os.environ['CUDA_VISIBLE_DEVICES'] = slot  # a spawned process has it before it imports anything
        process.start()
        send.close()
        theirs.close()
        began = time.perf_counter()
        self.running.append(_Running(cell, process, receive, ours, steps, slot, self.cost(cell), began))

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
        record['wall_seconds'] = round(time.perf_counter() - each.began, 2)
        folder = cell.job.part.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _FINISHED).write_text(json.dumps(record) + '\n', encoding='utf-8')
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
        self.display.total = self.finished + running + sum(map(self.cost, waiting)) + sum(self._expected())
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
        return f'{finished + 1} of {finished + open_}, about {hours(left)} left'

    def _show(self) -> None:
        parts = [f'{each.cell.name} {share:.0%}' for share, each in zip(self._shares(), self.running)]
        self.display.done = self.finished + sum(s * each.units for s, each in zip(self._shares(), self.running))
        self.display.start(', '.join(parts))


#: The record of a finished run, in its folder.
_FINISHED = 'record.json'


def _put_aside(folder: Path) -> Path | None:
    """Rename the folder of a finished run and return its new name; remove what a stop in the middle left."""
    if not any((folder / name).is_file() for name in (_FINISHED, 'done.json')) and not any(folder.glob('*.pth')):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    names = (folder.with_name(f'{folder.name}.{number}') for number in itertools.count(1))
    return folder.rename(next(name for name in names if not name.exists()))


def _misfit(cells: Cells, method: str) -> str | None:
    """Why a method cannot be built on the two networks; None if it can."""
    try:
        for model in cells.models(cells.setting.methods[method]):
            with MODELS.switch_scope_and_registry('mmdet') as registry:
                registry.build(model)
    except KDDetError as error:
        return str(error)
    except Exception as error:  # as a run would end with it
        return f'{type(error).__name__}: {error}'
    return None


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
            missing, done = bench.todo()
            if options.dry_run:
                bench.announce(missing, done)
            if options.check:
                bench.check(missing)
            if not options.dry_run and missing:
                bench.run()
            elif not missing and not options.dry_run:
                display.say(
                    f'{done} finished already, in {options.results}: nothing to run. '
                    'To repeat them, name a new folder, --work-dir NEW, and no --results.'
                )
            return bench.ledger.records(), bench.failed
    finally:
        lock.close()
