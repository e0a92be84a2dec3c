"""The wrapper that distils, and its parts."""

from .distill_detector import DistillDetector
from .plan import Plan
from .schedule import Schedule
from .teacher import Teacher
from .term import Term

__all__ = ['DistillDetector', 'Plan', 'Schedule', 'Teacher', 'Term']
