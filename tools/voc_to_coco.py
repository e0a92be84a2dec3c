"""Write COCO annotation files of a set in VOC's layout: its XML boxes, for the images that its lists name.

From ``DATA_ROOT/VOC2007/{JPEGImages,Annotations,ImageSets/Main}`` it writes ``DATA_ROOT/annotations/SPLIT.json``, with
images (``.jpg``) in the order of the list and boxes in the order of the XML. VOC counts pixels from 1, so that a box
becomes ``[xmin - 1, ymin - 1, xmax - xmin, ymax - ymin]``, as mmdet's ``VOCDataset`` reads it, which cuts fractions
off. Objects that are marked as difficult become ``iscrowd=1``: mmdet does not train on them, and COCO's metric ignores
them. Boxes without area are left out, and said.
"""

from __future__ import annotations

import json
import math
import sys
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from kd_det.checkpoint import atomic_path
from kd_det.engine import guarded
from kd_det.errors import ConfigError, did_you_mean


def _number(parent: ElementTree.Element, path: str, file: Path) -> float:
    text = parent.findtext(path)
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f'{file}: {path}: found {text!r}, expected a number.')
    return int(value) if value.is_integer() else value


def read_image(file: Path, classes: list[str]) -> tuple[dict, list[dict], int]:
    """What an XML file says.

    Args:
        file: The XML file of one image.
        classes: Names of the classes; category 1 is the first.

    Returns:
        The image (``file_name``, ``width``, ``height``), its annotations, and how many boxes without area were left
        out. Ids are not yet given.

    Raises:
        ConfigError: If the file is missing or broken, or names a class that is not among ``classes``.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except OSError as error:
        raise ConfigError(f'{file} cannot be read ({error.strerror}).') from error
    except ElementTree.ParseError as error:
        raise ConfigError(f'{file} is no XML file ({error}).') from error
    image = {key: _number(root, f'size/{key}', file) for key in ('width', 'height')}
    if min(image.values()) < 1:
        raise ConfigError(f'{file}: size: found {image}, expected positive numbers.')
    found, empty = [], 0
    for item in root.iter('object'):
        name = item.findtext('name')
        if name not in classes:
            raise ConfigError(f'{file}: class {name!r} is not among {classes}.{did_you_mean(str(name), classes)}')
        x1, y1, x2, y2 = (_number(item, f'bndbox/{key}', file) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
        width, height = x2 - x1, y2 - y1
        if width <= 0 or height <= 0:
            empty += 1
            continue
        found.append(
            dict(
                category_id=1 + classes.index(name),
                bbox=[x1 - 1, y1 - 1, width, height],
                area=width * height,
                iscrowd=int(item.findtext('difficult', '0').strip() == '1'),
            )
        )
    return image, found, empty


def convert(data_root: Path, split: str, classes: list[str]) -> tuple[dict, int]:
    """The COCO annotations of one split, and how many boxes without area were left out.

    Args:
        data_root: Folder that holds ``VOC2007``.
        split: Name of a list in ``ImageSets/Main``, without ``.txt``.
        classes: Names of the classes, in the order of their ids.

    Raises:
        ConfigError: If the list, an image or an XML file is missing, or something in one does not fit.
    """
    voc = data_root / 'VOC2007'
    listed = voc / 'ImageSets' / 'Main' / f'{split}.txt'
    if not listed.is_file():
        raise ConfigError(f'{listed} does not exist; expected a list of images, one name a line.')
    names = [line.strip() for line in listed.read_text(encoding='utf-8').splitlines() if line.strip()]
    for what, each in ((f'{listed}: image', names), ('--classes:', classes)):
        if twice := [name for name, count in Counter(each).items() if count > 1]:
            raise ConfigError(f'{what} {twice[0]!r} is named twice; expected each once.')
    images, annotations, left_out = [], [], 0
    for number, name in enumerate(names, start=1):
        if not (voc / 'JPEGImages' / f'{name}.jpg').is_file():
            raise ConfigError(f'{voc / "JPEGImages" / name}.jpg does not exist, but {listed} names it.')
        image, found, empty = read_image(voc / 'Annotations' / f'{name}.xml', classes)
        images.append(dict(id=number, file_name=f'{name}.jpg', **image))
        annotations += [dict(id=len(annotations) + i, image_id=number, **each) for i, each in enumerate(found, start=1)]
        left_out += empty
    categories = [dict(id=i, name=name) for i, name in enumerate(classes, start=1)]
    return dict(images=images, annotations=annotations, categories=categories), left_out


def main(argv=None):
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('data_root', metavar='DATA_ROOT', type=Path, help='folder that holds VOC2007')
    parser.add_argument('--classes', nargs='+', required=True, metavar='NAME', help='in the order of their ids')
    parser.add_argument('--splits', nargs='+', default=['train', 'val'], metavar='SPLIT', help='default: train val')
    args = parser.parse_args(argv)
    for split in args.splits:
        coco, left_out = convert(args.data_root, split, args.classes)
        out = args.data_root / 'annotations' / f'{split}.json'
        with atomic_path(out) as path:
            path.write_text(json.dumps(coco), encoding='utf-8')
        count = Counter(each['category_id'] for each in coco['annotations'])
        boxes = ', '.join(f'{name} {count[i]}' for i, name in enumerate(args.classes, start=1))
        more = f'; {left_out} without area left out' if left_out else ''
        print(f'{out}: {len(coco["images"])} images, {len(coco["annotations"])} boxes ({boxes}){more}')


if __name__ == '__main__':
    sys.exit(guarded(main))
