"""The built-in synthetic set, and a transform that keeps small sets in memory."""

from kd_det.datasets.synthetic import CLASSES, PALETTE, SyntheticSpec, check_synthetic, draw_scene, write_synthetic
from kd_det.datasets.transforms import LoadImageOnce

__all__ = [
    'CLASSES',
    'PALETTE',
    'LoadImageOnce',
    'SyntheticSpec',
    'check_synthetic',
    'draw_scene',
    'write_synthetic',
]
