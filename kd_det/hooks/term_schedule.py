"""Sets how much each distillation term counts, step by step."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from kd_det.registry import HOOKS


@HOOKS.register_module()
class TermScheduleHook(Hook):
    """Applies the ``schedule`` of each term of a :class:`~kd_det.detectors.DistillDetector`.

    It reads iteration and epoch from the runner, so a resumed run goes on where it was. Logged when a term starts or
    stops. Any other model is left alone.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the factors of the step to come."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for term in getattr(model, 'terms', ()):
            steps = (
                len(runner.train_dataloader) if runner.train_loop and hasattr(runner.train_dataloader, '__len__') else 1
            )
            factor = term.schedule.factor(runner.iter, runner.iter / max(1, steps))
            if bool(factor) != bool(term.factor):
                runner.logger.info(f'Term {term.name!r} {"starts" if factor else "stops"} at iteration {runner.iter}.')
            term.factor = factor
