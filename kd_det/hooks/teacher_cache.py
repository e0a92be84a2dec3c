"""Tells teachers' caches how many images there are, and lets them say what was replayed."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from kd_det.detectors.teacher_cache import TeacherCache
from kd_det.registry import HOOKS


@HOOKS.register_module()
class TeacherCacheHook(Hook):
    """Logs hits and misses of each :class:`~kd_det.detectors.teacher_cache.TeacherCache` at the end of each epoch.

    In a loop that counts iterations, an epoch is as many steps as the data loader is long. The counts are those of all
    processes together. Models whose teachers have no cache are left alone.
    """

    priority = 'LOW'

    def before_train(self, runner: Runner) -> None:
        """Tell the length of the data set."""
        dataset = getattr(runner.train_dataloader, 'dataset', None)
        for cache in self._caches(runner):
            cache.images = len(dataset) if hasattr(dataset, '__len__') else None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """The end of an epoch, where iterations are counted."""
        if isinstance(runner.train_loop, EpochBasedTrainLoop) or not hasattr(runner.train_dataloader, '__len__'):
            return
        if (runner.iter + 1) % max(1, len(runner.train_dataloader)) == 0:
            self._end_epoch(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """The end of an epoch; of the whole training, where iterations are counted."""
        self._end_epoch(runner)

    def _end_epoch(self, runner: Runner) -> None:
        for cache in self._caches(runner):
            counts = torch.tensor(cache.counts())
            all_reduce(counts)
            cache.end_epoch(counts.tolist())

    @staticmethod
    def _caches(runner: Runner) -> list[TeacherCache]:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        teachers = getattr(model, 'teachers', None)  # of a DistillDetector
        one = getattr(model, 'teacher', None)  # of a ParaphraserTrainer
        found = teachers.values() if isinstance(teachers, dict) else [one]
        return [teacher.cache for teacher in found if isinstance(getattr(teacher, 'cache', None), TeacherCache)]
