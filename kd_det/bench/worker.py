"""What runs in the process of one cell. Everything heavy is imported here, once for all cells."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mmdet.models  # noqa: F401, so that processes forked from a server have it
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings

import kd_det  # noqa: F401, registers everything
from kd_det.bench.cells import Job
from kd_det.bench.machine import resident
from kd_det.bench.part import Part, figures, initial_weights, output_to
from kd_det.checkpoint import atomic_path, load_checkpoint_safely, load_student
from kd_det.compat import import_mmrazor
from kd_det.detectors.teacher import Teacher
from kd_det.errors import ConfigError, KDDetError
from kd_det.registry import MODELS

import_mmrazor()  # half a second that each process would spend
__all__ = ['run_job', 'work']


class _Peak:
    """Peak memory above what the process held before: of the CUDA allocator, else resident."""

    def __init__(self) -> None:
        self.cuda = torch.cuda.is_available()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            with contextlib.suppress(OSError):
                Path('/proc/self/clear_refs').write_text('5')  # forget the peak of the imports
        self.before = 0.0 if self.cuda else resident('VmRSS')

    def mib(self) -> float | None:
        top = torch.cuda.max_memory_allocated() / 2**20 if self.cuda else resident('VmHWM')
        return None if top is None or self.before is None else round(top - self.before, 1)


@torch.no_grad()
def inherit_into(path: Path, target: Path, student: dict, teacher: dict, checkpoint: Path | str, parts: tuple) -> None:
    """Write initial weights in which some parts are the teacher's, tensor by tensor where names and shapes agree.

    Raises:
        ConfigError: If nothing of a part fits.
    """
    model = MODELS.build(student)
    model.load_state_dict(torch.load(path, weights_only=True)['state_dict'])
    source = Teacher(dict(model=teacher), str(checkpoint))
    source.load()
    for part in parts:
        try:
            ours, theirs = (net.get_submodule(part).state_dict() for net in (model, source.model))
        except AttributeError as error:
            raise ConfigError(f'bench.inherit: {part!r}: {error}.') from error
        fit = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
        if not fit:
            raise ConfigError(f"bench.inherit: nothing of the teacher's {part!r} fits the student's.")
        for name in fit:
            ours[name].copy_(theirs[name])
        print(f'Inherited {part!r}: {len(fit)} of {len(ours)} tensors.')
    with atomic_path(target) as temporary:
        torch.save(dict(state_dict=model.state_dict()), temporary)


def _prepare(job: Job) -> None:
    """The files that the job starts from, where no earlier one made them."""
    for cfg, seed, path in job.make:
        if path.is_file():
            continue
        if job.inherit is None or path != job.part.initial:
            initial_weights(cfg, seed, path)
            continue
        raw = path.with_suffix(f'.{os.getpid()}.raw.pth')  # another process may be making the same file
        teacher, checkpoint, parts = job.inherit
        try:
            initial_weights(cfg, seed, raw)
            with output_to(path.with_suffix('.log')):
                inherit_into(raw, path, cfg.model, teacher.model, checkpoint, parts)
        finally:
            for made in (raw, raw.with_suffix('.log')):
                made.unlink(missing_ok=True)


def _first_stage(part: Part, report: Callable[..., None]) -> dict:
    """Train what comes before a method; its weights are mmengine's checkpoint."""
    with output_to(part.folder / 'console.log'):
        start, cpu = time.perf_counter(), time.process_time()
        runner = Runner.from_cfg(part.runner_config())
        runner.train()
    seconds = round(time.perf_counter() - start, 2)
    report(steps=runner.iter, epoch=1, loss=0.0)
    cpu_seconds = round(time.process_time() - cpu, 2)
    return dict(metrics={}, diverged=False, steps=runner.iter, train_seconds=seconds, cpu_seconds=cpu_seconds)


class _Measured(Exception):
    """All steps that were to be timed have been."""


class _Alternate(Hook):
    """Takes a plain student's step after each step of a training, on the same batch, and times both."""

    def __init__(self, plain: Config, warmup: int = 5, steps: int = 25) -> None:
        self.plain, self.warmup, self.steps = plain, warmup, steps
        self.seconds: dict[str, list[float]] = dict(plain=[], method=[])

    def before_train(self, runner: Runner) -> None:
        device = next(runner.model.parameters()).device
        model = MODELS.build(self.plain.model)
        model.init_weights()
        model = model.to(device).train()
        optimiser = build_optim_wrapper(model, self.plain.optim_wrapper)
        inner = runner.model.train_step

        def both(data: dict, optim_wrapper: Any) -> dict:
            twin = copy.deepcopy(data)
            out = self._timed('method', inner, data, optim_wrapper)
            self._timed('plain', model.train_step, twin, optimiser)
            if len(self.seconds['plain']) >= self.warmup + self.steps:
                raise _Measured
            return out

        runner.model.train_step = both

    def _timed(self, name: str, step: Callable[..., dict], *args: Any) -> dict:
        cuda = torch.cuda.is_available()
        clock = time.perf_counter if cuda else time.process_time  # of the processor: less moved by other work
        if cuda:
            torch.cuda.synchronize()
        start = clock()
        out = step(*args)
        if cuda:
            torch.cuda.synchronize()
        self.seconds[name].append(clock() - start)
        return out

    def result(self) -> dict:
        """Medians of both, and of the ratios step by step."""
        plain, method = (self.seconds[name][self.warmup :] for name in ('plain', 'method'))
        medians = dict(plain=statistics.median(plain), method=statistics.median(method))
        ratio = statistics.median(m / p for m, p in zip(method, plain))
        return dict(step_seconds={k: round(v, 5) for k, v in medians.items()}, step_ratio=round(ratio, 4))


def _timing(job: Job) -> dict:
    """Steps of a method and of the plain student in turn."""
    with output_to(job.part.folder / 'console.log'):
        alternate = _Alternate(job.plain)
        runner = Runner.from_cfg(job.part.runner_config())
        runner.register_hook(alternate)
        with contextlib.suppress(_Measured):
            runner.train()
    count = len(alternate.seconds['plain'])
    if count <= alternate.warmup:
        raise ConfigError(f'{count} steps in an epoch are too few to time; expected more than {alternate.warmup}.')
    return dict(metrics={}, diverged=False, steps=count, train_seconds=0.0, cpu_seconds=0.0, **alternate.result())


def _only_test(job: Job) -> dict:
    """Measure weights that were given."""
    part = job.part
    with output_to(part.folder / 'console.log'):
        cfg = part.runner_config()
        cfg.test_cfg, cfg.test_dataloader, cfg.test_evaluator = cfg.val_cfg, cfg.val_dataloader, cfg.val_evaluator
        cfg.test_cfg = dict(type='TestLoop')
        runner = Runner.from_cfg(cfg)
        load_student(runner.model, load_checkpoint_safely(job.given), job.given)
        metrics = figures(runner.test())
        counted = part.complexity()
    return dict(metrics=metrics, diverged=False, steps=0, train_seconds=0.0, cpu_seconds=0.0, **counted)


def run_job(job: Job, report: Callable[..., None]) -> dict:
    """Run a cell in this process.

    Args:
        job: What to do.
        report: As :meth:`kd_det.bench.part.Part.train` calls it.

    Returns:
        What was measured.
    """
    if job.imports:
        import_modules_from_strings(job.imports)
    init_default_scope('mmdet')
    job.part.folder.parent.mkdir(parents=True, exist_ok=True)
    peak = _Peak()
    _prepare(job)
    if job.first_stage:
        record = _first_stage(job.part, report)
    elif job.plain is not None:
        record = _timing(job)
    elif job.only_test:
        record = _only_test(job)
    else:
        record = job.part.train(report)
    device = f'cuda:{os.environ.get("CUDA_VISIBLE_DEVICES", "0")}' if torch.cuda.is_available() else 'cpu'
    record.update(peak_mib=peak.mib(), threads=torch.get_num_threads(), device=device)
    return record


def _die_with(parent: Connection) -> None:
    """End this process when the other end of the pipe is gone, however it went."""
    with contextlib.suppress(EOFError, OSError):
        parent.recv()
    os._exit(1)


def work(job: Job, threads: int, gpu: str | None, steps: object, out: Connection, parent: Connection) -> None:
    """Entry of a cell's process.

    Args:
        job: What to do.
        threads: Of torch.
        gpu: What CUDA sees, as the parent has put it into the environment; None for nothing.
        steps: Shared counter of finished steps.
        out: Gets ``('done', record)`` or ``('failed', text)``.
        parent: A pipe that is never written to; it closes with the process that started this one.
    """
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    gc.freeze()  # mmengine collects often; what the imports left need not be searched each time
    torch.set_num_threads(threads)
    sys.stdin = open(os.devnull)
    log = job.part.folder.parent / f'{job.part.folder.name}.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, 'w') as file:  # what libraries print past Python goes there too
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

    def report(steps: int = 0, **_: object) -> None:
        counter.value += steps

    counter = steps
    try:
        out.send(('done', run_job(job, report)))
    except KeyboardInterrupt:
        os._exit(130)
    except Exception as error:
        text = str(error) if isinstance(error, KDDetError) else f'{type(error).__name__}: {error}'
        with output_to(job.part.folder / 'console.log'):
            traceback.print_exc()
        out.send(('failed', text))
