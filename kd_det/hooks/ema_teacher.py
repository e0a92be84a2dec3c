"""Moves mean teachers."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from kd_det.registry import HOOKS

#: Where a checkpoint keeps them: beside the student's ``state_dict``, never in it.
KEY = 'ema_teachers'


@HOOKS.register_module()
class EMATeacherHook(Hook):
    """Moves each :class:`~kd_det.detectors.EMATeacher` towards the student after every step; checkpoints keep it.

    A run that is resumed goes on with the average it had. Models without such a teacher are left alone.
    """

    priority = 'NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Start as copies of the student, unless a checkpoint brought the averages."""
        for teacher, student in self._teachers(runner):
            if not int(teacher.averaged.steps):
                teacher.follow(student)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """One move."""
        for teacher, student in self._teachers(runner):
            teacher.follow(student)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Put the averages beside the student."""
        found = {teacher.key: teacher.averaged.state_dict() for teacher, _ in self._teachers(runner)}
        if found:
            checkpoint[KEY] = found

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Take the averages of the run that is resumed."""
        for teacher, _ in self._teachers(runner):
            if teacher.key in checkpoint.get(KEY, {}):
                teacher.averaged.load_state_dict(checkpoint[KEY][teacher.key])

    @staticmethod
    def _teachers(runner: Runner) -> list[tuple[Any, Any]]:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        teachers = getattr(model, 'teachers', None)
        return [(t, model.student) for t in teachers.values() if t.follows] if isinstance(teachers, dict) else []
