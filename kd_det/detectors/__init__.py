"""The wrapper that distils, and its parts."""

from .distill_detector import DistillDetector
from .paraphraser import ParaphraserTrainer
from .plan import Plan
from .schedule import Schedule
from .teacher import EMATeacher, Teacher
from .term import Term

__all__ = ['DistillDetector', 'EMATeacher', 'ParaphraserTrainer', 'Plan', 'Schedule', 'Teacher', 'Term']
