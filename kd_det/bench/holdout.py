"""Part of the training images, split off to choose weights by, so that the validation images choose nothing."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kd_det.bench.setting import leaves
from kd_det.checkpoint import atomic_path
from kd_det.errors import ConfigError, DataError

__all__ = ['split_off']


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def _parts(items: list[Any], share: float, seed: int) -> tuple[list[Any], list[Any]]:
    """What stays, and what is held out; both in the order of the file."""
    count = min(max(1, round(share * len(items))), len(items) - 1)
    held = set(random.Random(seed).sample(range(len(items)), count))
    return [x for i, x in enumerate(items) if i not in held], [x for i, x in enumerate(items) if i in held]


def _split_file(path: Path, share: float, seed: int, folder: Path) -> tuple[Path, Path]:
    """Write both parts of an annotation file: COCO's JSON by images, or VOC's list of image names."""
    try:
        text = path.read_text()
    except OSError as error:
        raise DataError(f"train_dataloader: '{path}' cannot be read ({error.strerror}).") from error
    out = folder / f'stays-{path.name}', folder / f'holdout-{path.name}'
    try:
        content = json.loads(text) if path.suffix == '.json' else dict(images=text.split())
        count = len(content['images'])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"train_dataloader: '{path}' is no COCO file; expected JSON with 'images'.") from error
    if count < 2:
        raise DataError(f"train_dataloader: '{path}': found {count} images, expected 2 or more to split a holdout off.")
    if path.suffix != '.json':
        for target, names in zip(out, _parts(content['images'], share, seed)):
            _write(target, '\n'.join(names) + '\n')
        return out
    for target, images in zip(out, _parts(content['images'], share, seed)):
        ids = {image['id'] for image in images}
        boxes = [box for box in content['annotations'] if box['image_id'] in ids]
        _write(target, json.dumps({**content, 'images': images, 'annotations': boxes}))
    return out


def split_off(cfg: Config, share: float, seed: int, folder: Path) -> Config:
    """Let a config train on the training images without a holdout, and validate on the holdout.

    Args:
        cfg: Changed in place. Its training set may be wrapped (``RepeatDataset``, ``ConcatDataset``); of several sets
            each gives up its share, and the first one's is validated on.
        share: Of the images that is held out.
        seed: Of the choice.
        folder: Where the two lists of each set are written.

    Returns:
        ``cfg``.

    Raises:
        ConfigError: If a set has no annotation file that could be split.
        DataError: If that file cannot be read, or lists fewer than two images.
    """
    held = None
    for number, leaf in enumerate(leaves(cfg.train_dataloader.dataset)):
        name = leaf.get('ann_file')
        if not name or Path(name).suffix not in ('.json', '.txt'):
            raise ConfigError(
                f'train_dataloader: ann_file is {name!r}; to tune weights, a holdout is split off an annotation file '
                'that ends in .json (COCO) or .txt (VOC). Leave tune out for other sets.'
            )
        path = Path(name) if Path(name).is_absolute() else Path(leaf.get('data_root') or '', name)
        stays, holdout = _split_file(
            path, share, seed, folder / f'{number}-{zlib.crc32(str(path.resolve()).encode()):08x}'
        )
        leaf.ann_file = str(stays.resolve())
        held = held or (leaf, str(holdout.resolve()))
    leaf, holdout = held
    target = leaves(cfg.val_dataloader.dataset)[0]
    target.ann_file = holdout
    for key in ('data_root', 'data_prefix'):
        target.pop(key, None)
        if key in leaf:
            target[key] = leaf[key]
    cfg.val_dataloader.dataset = target  # of several validation sets one is left
    evaluator = cfg.val_evaluator
    for each in evaluator if isinstance(evaluator, list) else [evaluator]:
        if each.get('ann_file'):
            each['ann_file'] = holdout
    return cfg
