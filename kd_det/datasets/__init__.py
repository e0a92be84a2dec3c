"""The built-in synthetic set, and transforms: images kept in memory, labels shuffled on purpose."""

from kd_det.datasets.cached_images import LoadImageOnce
from kd_det.datasets.shuffle_labels import ShuffleLabels
from kd_det.datasets.synthetic import CLASSES, PALETTE, SyntheticSpec, check_synthetic, draw_scene, write_synthetic

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
