"""Hooks of the runner: one concern each."""

from .student_checkpoint import StudentCheckpointHook
from .term_schedule import TermScheduleHook

__all__ = ['StudentCheckpointHook', 'TermScheduleHook']
