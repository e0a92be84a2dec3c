"""A data set of a few small images in COCO's own layout and classes, for tests that run a whole training."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np


def write_tiny_coco(
    root: Path, n_train: int = 2, n_val: int = 2, size: tuple[int, int] = (128, 128), seed: int = 0
) -> Path:
    """Write ``annotations/instances_{train,val}2017.json`` and ``{train,val}2017/*.png`` below ``root``.

    Each image shows two filled rectangles, of COCO's classes person and car, with boxes and polygons.

    Args:
        size: Height and width.
    """
    from mmdet.datasets import CocoDataset

    names = CocoDataset.METAINFO['classes']
    rng = np.random.default_rng(seed)
    height, width = size
    for split, n in (('train', n_train), ('val', n_val)):
        folder = root / f'{split}2017'
        folder.mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for index in range(1, n + 1):
            image = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
            for category, colour in ((1, (40, 60, 220)), (3, (210, 180, 30))):
                w, h = rng.integers(30, 56, 2).tolist()
                x, y = int(rng.integers(0, width - w)), int(rng.integers(0, height - h))
                cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1)
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=index,
                        category_id=category,
                        bbox=[x, y, w, h],
                        area=w * h,
                        iscrowd=0,
                        segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]],
                    )
                )
            cv2.imwrite(str(folder / f'{index}.png'), image)
            images.append(dict(id=index, file_name=f'{index}.png', height=height, width=width))
        (root / 'annotations').mkdir(exist_ok=True)
        (root / 'annotations' / f'instances_{split}2017.json').write_text(
            json.dumps(
                dict(
                    images=images,
                    annotations=annotations,
                    categories=[dict(id=index, name=name) for index, name in enumerate(names, 1)],
                )
            )
        )
    return root


def tiny_options(root: Path, scale: int = 128, batch: int = 1) -> list[str]:
    """``--cfg-options`` that point a config based on mmdet's ``coco_detection.py`` to such a data set."""
    options = [
        f'train_dataloader.dataset.data_root={root}/',
        f'val_dataloader.dataset.data_root={root}/',
        f'test_dataloader.dataset.data_root={root}/',
        f'val_evaluator.ann_file={root}/annotations/instances_val2017.json',
        f'test_evaluator.ann_file={root}/annotations/instances_val2017.json',
        f'train_dataloader.dataset.pipeline.2.scale=({scale},{scale})',
        f'val_dataloader.dataset.pipeline.1.scale=({scale},{scale})',
        f'test_dataloader.dataset.pipeline.1.scale=({scale},{scale})',
        f'train_dataloader.batch_size={batch}',
        'default_hooks.logger.interval=1',
        'train_cfg.max_epochs=1',
    ]
    for split in ('train', 'val', 'test'):
        options += [f'{split}_dataloader.num_workers=0', f'{split}_dataloader.persistent_workers=False']
    return options
