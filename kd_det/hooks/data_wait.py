"""Says when training waits for its data, and what to do about it."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from mmengine.dist import all_gather, get_world_size
from mmengine.hooks import Hook, IterTimerHook
from mmengine.runner import Runner

from kd_det.datasets.cached_images import LoadImageOnce, decoded_size, loading_steps, size_text
from kd_det.errors import ConfigError
from kd_det.registry import HOOKS


@HOOKS.register_module()
class DataWaitHook(Hook):
    """Compares what a step waits for data with what it takes, and warns once if that is too large a share.

    It reads the ``data_time`` and ``time`` of mmengine's ``IterTimerHook``. The hooks behind that one in a step (EMA,
    log, checkpoints) run within the next ``data_time``, and so do the metrics of a validation between two steps; what
    they take is no waiting and is taken off. Of several processes the one that waits most counts. After a warning the
    next one comes only if the share has grown by ``share`` again. Nothing is said otherwise, but for the size of what a
    :class:`~kd_det.datasets.LoadImageOnce` will keep, as training starts.

    Args:
        interval: Steps that are judged together.
        share: Of their time, that may be spent waiting.
        warmup: Steps that are not judged as training starts or is resumed; a whole epoch at least if images are kept
            in memory as they are read.

    Raises:
        ConfigError: If one of them is out of range.
    """

    priority = 'LOWEST'  # behind all hooks whose time falls into the next data_time

    def __init__(self, interval: int = 50, share: float = 0.1, warmup: int = 20) -> None:
        for key, value, least in (('interval', interval, 1), ('warmup', warmup, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f'DataWaitHook.{key}: found {value!r}, expected an integer of at least {least}.')
        if not isinstance(share, (int, float)) or not 0 < share < 1:
            raise ConfigError(f'DataWaitHook.share: found {share!r}, expected a number between 0 and 1.')
        self.interval, self.share, self.warmup = interval, share, warmup
        self._timer: IterTimerHook | None = None
        self._said = 0.0
        self._start(warmup)

    def _start(self, skip: int) -> None:
        self._skip, self._steps, self._behind = skip, 0, 0.0
        self._wait = self._wait_first = self._time = 0.0

    def before_train(self, runner: Runner) -> None:
        """Start anew, and say what image caches will take."""
        self._timer = next((hook for hook in runner.hooks if isinstance(hook, IterTimerHook)), None)
        loader = runner.train_dataloader
        caches = [(data, s) for data, s in loading_steps(loader.dataset) if isinstance(s, LoadImageOnce)]
        for data, step in caches:
            size = decoded_size(data, step)
            if size is not None:
                step.announce(len(data), size)
        epoch = len(loader) if caches and hasattr(loader, '__len__') else 0
        self._start(max(self.warmup, epoch))

    def before_train_epoch(self, runner: Runner) -> None:
        """The timer starts anew, too."""
        self._behind = 0.0

    def after_val(self, runner: Runner) -> None:
        """Metrics and hooks behind the last step of a validation are no waiting, either."""
        self._mark()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Add one step, and judge them after an interval."""
        scalars = runner.message_hub.log_scalars
        if 'train/data_time' not in scalars or 'train/time' not in scalars:  # a run without IterTimerHook
            return
        wait = max(0.0, scalars['train/data_time'].current() - self._behind)
        if self._skip:
            self._skip -= 1
        else:
            self._steps += 1
            self._time += scalars['train/time'].current()
            self._wait += wait
            self._wait_first += wait if batch_idx == 0 else 0.0
        if self._steps == self.interval:
            self._judge(runner)
            self._start(0)
        self._mark()

    def _mark(self) -> None:
        """Note how long ago the timer stopped: so much of the next ``data_time`` is no waiting."""
        self._behind = time.time() - self._timer.t if self._timer is not None else 0.0

    def _judge(self, runner: Runner) -> None:
        """Warn if the worst process waits too long; all processes come here at the same step."""
        mine = torch.tensor([self._wait, self._time, self._wait_first], dtype=torch.float64)
        each = [row.tolist() for row in all_gather(mine)]
        worst = max(range(len(each)), key=lambda i: each[i][0] / max(each[i][1], 1e-9))
        wait, whole, first = each[worst]
        share = wait / max(whole, 1e-9)
        if share <= self._said + self.share:
            return
        self._said = share
        who = f' in process {worst} of {len(each)}' if len(each) > 1 else ''
        when = ', most of it as epochs begin' if first > wait / 2 else ''
        runner.logger.warning(
            f'Training waits for its data{who}: {wait / self.interval:.3f} of {whole / self.interval:.3f} s a step '
            f'({share:.0%}) over the last {self.interval} steps{when}. {remedies(runner.train_dataloader, bool(when))}'
        )


def remedies(loader: Any, at_start: bool = False) -> str:
    """What may make a data loader faster, in a sentence.

    Args:
        loader: A ``DataLoader``.
        at_start: Whether epochs begin slowly.
    """
    workers, cores = loader.num_workers, cores_each()
    ways = []
    if workers < cores:
        ways.append(f'train_dataloader.num_workers={min(cores, max(2, 2 * workers))} or so')
    if workers and not loader.persistent_workers:
        persistent = 'train_dataloader.persistent_workers=True'
        ways = [persistent, *ways] if at_start else [*ways, persistent]
    steps = loading_steps(loader.dataset)
    sizes = [decoded_size(data, step) for data, step in steps if not isinstance(step, LoadImageOnce)]
    if sizes and None not in sizes:
        images = sum(len(data) for data, step in steps if not isinstance(step, LoadImageOnce))
        ways.append(
            f'kd_det.LoadImageOnce for LoadImageFromFile if memory allows (about {size_text(sum(sizes))} for '
            f'{images} images)'
        )
    if workers >= cores:
        ways.append('cheaper transforms')
    ways.append('faster storage')
    return f'Workers: {workers}, cores for them: {cores}. What may help: {"; ".join(ways)}.'


def cores_each() -> int:
    """CPU cores that each process of this machine may use, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get('LOCAL_WORLD_SIZE', get_world_size())))
