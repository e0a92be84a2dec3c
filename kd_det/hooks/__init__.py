"""Hooks of the runner: one concern each."""

from .data_wait import DataWaitHook
from .ema_teacher import EMATeacherHook
from .instance_ids import InstanceIdHook
from .pin_memory import PinMemoryHook
from .student_checkpoint import StudentCheckpointHook
from .teacher_cache import TeacherCacheHook
from .term_schedule import TermScheduleHook

__all__ = [
    'DataWaitHook',
    'EMATeacherHook',
    'InstanceIdHook',
    'PinMemoryHook',
    'StudentCheckpointHook',
    'TeacherCacheHook',
    'TermScheduleHook',
]
