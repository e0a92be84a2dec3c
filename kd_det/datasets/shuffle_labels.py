"""Wrong labels on purpose, for teachers that must not help."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from kd_det.errors import ConfigError
from kd_det.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ShuffleLabels(BaseTransform):
    """Gives each annotated object a label drawn whatever the object is, the same one each time the image is read.

    Boxes stay where they are: a detector trained so finds objects and cannot name them. It stands right after
    ``LoadAnnotations``, before anything that drops boxes.

    Args:
        num_classes: Number of classes.
        seed: Of the labels; they depend on it and on the image's id (without one, its path).
        frequencies: How often each class is drawn, ``num_classes`` shares; those of the data set give what shuffling
            its labels gives. None for all equally.

    Raises:
        ConfigError: If there is another number of frequencies, or their sum is not 1.
    """

    def __init__(self, num_classes: int, seed: int = 0, frequencies: Sequence[float] | None = None) -> None:
        fits = frequencies is None or (len(frequencies) == num_classes and abs(sum(frequencies) - 1) < 1e-6)
        if not fits:
            raise ConfigError(
                f'ShuffleLabels.frequencies: found {list(frequencies)}, expected {num_classes} shares of sum 1.'
            )
        self.num_classes, self.seed, self.frequencies = num_classes, seed, frequencies

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
        drawn = generator.choice(self.num_classes, size=len(labels), p=self.frequencies)
        results['gt_bboxes_labels'] = drawn.astype(labels.dtype)
        return results
