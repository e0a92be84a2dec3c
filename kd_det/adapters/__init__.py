"""Adapters: how to make two readings comparable. One file per kind."""

from .align import Align
from .base import Adapter, Pair
from .connectors import Connectors
from .cross_head import CrossHead
from .dense import DenseRows
from .distributions import BoxDistributions
from .instances import Instances
from .margins import TeacherNorms
from .multibox import MultiBox
from .queries import QueryRows
from .roi_pyramid import RoIPyramid
from .rows import AnchorRows, RoIRows
from .stage_classifier import StageClassifier
from .tokens import TokenMaps

__all__ = [
    'Adapter',
    'Align',
    'AnchorRows',
    'BoxDistributions',
    'Connectors',
    'CrossHead',
    'DenseRows',
    'Instances',
    'MultiBox',
    'Pair',
    'QueryRows',
    'RoIPyramid',
    'RoIRows',
    'StageClassifier',
    'TeacherNorms',
    'TokenMaps',
]
