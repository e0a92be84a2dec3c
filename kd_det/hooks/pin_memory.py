"""Batches in pinned memory, where there is a GPU to copy them to."""

from __future__ import annotations

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from kd_det.registry import HOOKS


@HOOKS.register_module()
class PinMemoryHook(Hook):
    """Lets the training data loader put batches into pinned memory, from which a GPU copies faster.

    Neither mmengine nor mmdet's data sets do so by themselves. Nothing changes without CUDA, or where the config says
    ``train_dataloader=dict(pin_memory=…)``. It is for loops of epochs: a loop of iterations starts its workers before
    hooks run.
    """

    priority = 'NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Before the workers of the first epoch start."""
        given = runner.cfg.get('train_dataloader')
        if torch.cuda.is_available() and not (isinstance(given, dict) and 'pin_memory' in given):
            runner.train_dataloader.pin_memory = True
