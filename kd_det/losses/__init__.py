"""Losses, one file per paper: tensors in, one scalar out."""

from .cc import CCLoss
from .chen import MultiBoxKDLoss, SoftTargetLoss, TeacherBoundedL2Loss
from .crosskd import QFLKDLoss
from .cwd import CWDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .fgd import FGDLoss
from .kd import KDLoss
from .mgd import MGDLoss
from .ofa import OFALoss
from .pkt import PKTLoss
from .rkd import RKDLoss
from .sdd import SDDLoss
from .sp import SPLoss

__all__ = [
    'CCLoss',
    'CWDLoss',
    'DISTLoss',
    'DKDLoss',
    'FGDLoss',
    'KDLoss',
    'MGDLoss',
    'MultiBoxKDLoss',
    'OFALoss',
    'PKTLoss',
    'QFLKDLoss',
    'RKDLoss',
    'SDDLoss',
    'SPLoss',
    'SoftTargetLoss',
    'TeacherBoundedL2Loss',
]
