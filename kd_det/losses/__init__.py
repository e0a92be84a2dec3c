"""Losses, one file per paper: tensors in, one scalar out."""

from .chen import MultiBoxKDLoss, SoftTargetLoss, TeacherBoundedL2Loss
from .cwd import CWDLoss
from .fgd import FGDLoss
from .mgd import MGDLoss

__all__ = ['CWDLoss', 'FGDLoss', 'MGDLoss', 'MultiBoxKDLoss', 'SoftTargetLoss', 'TeacherBoundedL2Loss']
