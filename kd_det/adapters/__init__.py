"""Adapters: how to make two readings comparable. One file per kind."""

from .align import Align
from .base import Adapter, Pair
from .cross_head import CrossHead
from .dense import DenseRows
from .instances import Instances
from .multibox import MultiBox
from .rows import AnchorRows, RoIRows
from .stage_classifier import StageClassifier

__all__ = [
    'Adapter',
    'Align',
    'AnchorRows',
    'CrossHead',
    'DenseRows',
    'Instances',
    'MultiBox',
    'Pair',
    'RoIRows',
    'StageClassifier',
]
