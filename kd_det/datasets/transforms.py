"""Transforms of the data pipeline that mmdet does not have."""

from __future__ import annotations

from mmcv.transforms import LoadImageFromFile

from kd_det.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageOnce(LoadImageFromFile):
    """Read and decode each image once and keep it in memory.

    For small sets that are read many times by few processes: each worker of a data loader has its own store.

    Args:
        max_images: At most so many images are kept; the others are read anew each time.
        **kwargs: Those of ``mmcv.transforms.LoadImageFromFile``.
    """

    def __init__(self, max_images: int = 2000, **kwargs) -> None:
        super().__init__(**kwargs)
        self.max_images = max_images
        self._images: dict = {}

    def transform(self, results: dict) -> dict:
        """Fill ``img``, ``img_shape`` and ``ori_shape`` from the store, or from the file ``img_path``."""
        path = results['img_path']
        image = self._images.get(path)
        if image is None:
            results = super().transform(results)
            if results is not None and len(self._images) < self.max_images:
                self._images[path] = results['img'].copy()
            return results
        results['img'] = image.copy()
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results
