"""Hooks of the runner: one concern each."""

from .ema_teacher import EMATeacherHook
from .instance_ids import InstanceIdHook
from .student_checkpoint import StudentCheckpointHook
from .term_schedule import TermScheduleHook

__all__ = ['EMATeacherHook', 'InstanceIdHook', 'StudentCheckpointHook', 'TermScheduleHook']
