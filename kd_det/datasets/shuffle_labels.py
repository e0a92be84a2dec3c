"""Wrong labels on purpose, for teachers that must not help."""

from __future__ import annotations

import zlib

import numpy as np
from mmcv.transforms import BaseTransform

from kd_det.errors import ConfigError
from kd_det.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ShuffleLabels(BaseTransform):
    """Gives each annotated object a label drawn from all classes, the same one each time the image is read.

    Boxes stay where they are: a detector trained so finds objects and cannot name them. It stands right after
    ``LoadAnnotations``, before anything that drops boxes.

    Args:
        num_classes: Number of classes.
        seed: Of the labels; they depend on it and on the image's id (without one, its path).
    """

    def __init__(self, num_classes: int, seed: int = 0) -> None:
        self.num_classes, self.seed = num_classes, seed

    def transform(self, results: dict) -> dict:
        """Replace ``gt_bboxes_labels``, shape (n,), int64.

        Raises:
            ConfigError: If labels are not loaded yet.
        """
        if 'gt_bboxes_labels' not in results:
            raise ConfigError('ShuffleLabels: found no gt_bboxes_labels; expected a place after LoadAnnotations.')
        name = str(results.get('img_id', results.get('img_path', '')))
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        labels = results['gt_bboxes_labels']
        results['gt_bboxes_labels'] = generator.integers(self.num_classes, size=len(labels)).astype(labels.dtype)
        return results
