"""Losses, one file per paper: tensors in, one scalar out."""

from .ab import ABLoss
from .at import ATLoss
from .cc import CCLoss
from .chen import MultiBoxKDLoss, SoftTargetLoss, TeacherBoundedL2Loss
from .crd import CRDLoss
from .crosskd import QFLKDLoss
from .cwd import CWDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .fbkd import FBKDLoss
from .fgd import FGDLoss
from .fitnet import FitNetLoss
from .fsp import FSPLoss
from .ft import FTLoss
from .ickd import ICKDLoss
from .kd import KDLoss
from .ld import LDLoss
from .mgd import MGDLoss
from .nst import NSTLoss
from .ofa import OFALoss
from .ofd import OFDLoss
from .pkd import PKDLoss
from .pkt import PKTLoss
from .reviewkd import ReviewKDLoss
from .rkd import RKDLoss
from .sdd import SDDLoss
from .sp import SPLoss
from .vid import VIDLoss

__all__ = [
    'ABLoss',
    'ATLoss',
    'CCLoss',
    'CRDLoss',
    'CWDLoss',
    'DISTLoss',
    'DKDLoss',
    'FBKDLoss',
    'FGDLoss',
    'FSPLoss',
    'FTLoss',
    'FitNetLoss',
    'ICKDLoss',
    'KDLoss',
    'LDLoss',
    'MGDLoss',
    'MultiBoxKDLoss',
    'NSTLoss',
    'OFALoss',
    'OFDLoss',
    'PKDLoss',
    'PKTLoss',
    'QFLKDLoss',
    'RKDLoss',
    'ReviewKDLoss',
    'SDDLoss',
    'SPLoss',
    'SoftTargetLoss',
    'TeacherBoundedL2Loss',
    'VIDLoss',
]
