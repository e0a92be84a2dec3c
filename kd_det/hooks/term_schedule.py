"""Sets how much each distillation term counts, step by step, and how far a learnt temperature's curriculum has come."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from kd_det.losses.temperature import CurriculumTemperature
from kd_det.registry import HOOKS


@HOOKS.register_module()
class TermScheduleHook(Hook):
    """Applies the ``schedule`` of each term of a :class:`~kd_det.detectors.DistillDetector`, and tells each
    :class:`~kd_det.losses.temperature.CurriculumTemperature` in it the running epoch, counted from 1.

    It reads iteration and epoch from the runner, so a resumed run goes on where it was; in a loop that counts
    iterations, an epoch is as many steps as the data loader is long. Logged when a term starts or stops. Any other
    model is left alone.
    """

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Set the factors and the epoch of the step to come."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        terms = getattr(model, 'terms', ())
        if not terms:
            return
        steps = len(runner.train_dataloader) if runner.train_loop and hasattr(runner.train_dataloader, '__len__') else 1
        done = runner.iter / max(1, steps)
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        running = 1 + (runner.epoch if by_epoch else int(done))
        for term in terms:
            factor = term.schedule.factor(runner.iter, done)
            if bool(factor) != bool(term.factor):
                runner.logger.info(f'Term {term.name!r} {"starts" if factor else "stops"} at iteration {runner.iter}.')
            term.factor = factor
            for module in term.modules():
                if isinstance(module, CurriculumTemperature):
                    module.set_epoch(running)
