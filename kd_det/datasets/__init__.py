"""The built-in synthetic set, and transforms: images kept in memory, labels shuffled on purpose."""

from kd_det.datasets.shuffle_labels import ShuffleLabels
from kd_det.datasets.synthetic import CLASSES, PALETTE, SyntheticSpec, check_synthetic, draw_scene, write_synthetic
from kd_det.datasets.transforms import LoadImageOnce

__all__ = [
    'CLASSES',
    'PALETTE',
    'LoadImageOnce',
    'ShuffleLabels',
    'SyntheticSpec',
    'check_synthetic',
    'draw_scene',
    'write_synthetic',
]
