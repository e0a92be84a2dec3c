"""``tools/voc_to_coco.py``: the same boxes as the sets' own JSON files, and as mmdet's reader of VOC."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loaded_tool import tool
from mmdet.datasets import CocoDataset, VOCDataset

from kd_det.engine import guarded

ROOT = Path(__file__).resolve().parents[2]
CLASSES = dict(
    bccd=('Platelets', 'RBC', 'WBC'),
    cards=('nine', 'ten', 'jack', 'queen', 'king', 'ace'),
)
OBJECT = """<object><name>{}</name><difficult>{}</difficult>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"""


def run(*argv):
    return guarded(tool('voc_to_coco').main, [str(each) for each in argv])


def write(root, objects, width='40', listed=1):
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / 'VOC2007' / folder).mkdir(parents=True, exist_ok=True)
    (root / 'VOC2007' / 'ImageSets' / 'Main' / 'val.txt').write_text('a b\n' * listed)
    (root / 'VOC2007' / 'JPEGImages' / 'a b.jpg').touch()
    size = f'<size><width>{width}</width><height>30</height><depth>3</depth></size>'
    body = ''.join(OBJECT.format(*each) for each in objects)
    (root / 'VOC2007' / 'Annotations' / 'a b.xml').write_text(f'<annotation>{size}{body}</annotation>')


@pytest.mark.parametrize('name', CLASSES)
@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_sets_come_out_as_they_are_kept(tmp_path, shared, name, split):
    """Also: the lists in docs/splits are those of the sets."""
    source = shared / 'data' / name
    voc = tmp_path / 'VOC2007'
    (voc / 'ImageSets' / 'Main').mkdir(parents=True)
    for folder in ('JPEGImages', 'Annotations'):
        (voc / folder).symlink_to((source / 'VOC2007' / folder).resolve())
    (voc / 'ImageSets' / 'Main' / f'{split}.txt').write_text((ROOT / 'docs/splits' / f'{name}_{split}.txt').read_text())
    assert run(tmp_path, '--classes', *CLASSES[name], '--splits', split) == 0
    made, kept = (json.loads((root / 'annotations' / f'{split}.json').read_text()) for root in (tmp_path, source))
    assert made['categories'] == [{key: each[key] for key in ('id', 'name')} for each in kept['categories']]
    assert named(made) == named(kept)


def named(coco):
    """Images and boxes in order, without ids: those of cards leave out some numbers."""
    files = {each['id']: each['file_name'] for each in coco['images']}
    assert len(files) == len(coco['images']) == len({*files.values()})
    images = [(each['file_name'], each['width'], each['height']) for each in coco['images']]
    keys = ('category_id', 'bbox', 'area', 'iscrowd')
    return images, [(files[each['image_id']], *(each[key] for key in keys)) for each in coco['annotations']]


def test_boxes_are_those_that_mmdet_reads_from_the_xml(tmp_path, capsys):
    boxes = [('cup', 0, 1, 1, 11, 21), ('pot', 1, 5, 6, 9, 8), ('cup', 0, 7, 7, 7, 9), ('cup', 0, 2, 3, 30, 30)]
    write(tmp_path, boxes)
    assert run(tmp_path, '--classes', 'pot', 'cup', '--splits', 'val') == 0
    assert '1 images, 3 boxes (pot 1, cup 2); 1 without area left out' in capsys.readouterr().out
    made = json.loads((tmp_path / 'annotations' / 'val.json').read_text())
    assert made['images'] == [dict(id=1, file_name='a b.jpg', width=40, height=30)]
    assert [(each['category_id'], each['iscrowd']) for each in made['annotations']] == [(2, 0), (1, 1), (2, 0)]
    meta = dict(classes=('pot', 'cup'))
    coco = CocoDataset(
        data_root=str(tmp_path), ann_file='annotations/val.json', data_prefix=dict(img='VOC2007/JPEGImages/'),
        metainfo=meta, pipeline=[],
    )  # fmt: skip
    voc = VOCDataset(
        data_root=str(tmp_path), ann_file='VOC2007/ImageSets/Main/val.txt',
        data_prefix=dict(sub_data_root='VOC2007/'), metainfo=meta, pipeline=[],
    )  # fmt: skip
    ours, theirs = (
        [(each['bbox'], each['bbox_label'], each['ignore_flag']) for each in data.get_data_info(0)['instances']]
        for data in (coco, voc)
    )
    assert ours == [each for each in theirs if each[0][2] > each[0][0]]


@pytest.mark.parametrize(
    'change, text',
    [
        (lambda root: write(root, [('cups', 0, 1, 1, 5, 5)]), "class 'cups' is not among ['cup']. Nearest: 'cup'"),
        (lambda root: write(root, [('cup', 0, 1, 'x', 5, 5)]), "a b.xml: bndbox/ymin: found 'x', expected a number"),
        (lambda root: write(root, [], width=''), "a b.xml: size/width: found '', expected a number"),
        (
            lambda root: write(root, [('cup', 0, 1, 'nan', 5, 5)]),
            "a b.xml: bndbox/ymin: found 'nan', expected a number",
        ),
        (lambda root: write(root, [], width='0'), "a b.xml: size: found {'width': 0, 'height': 30}, expected positive"),
        (lambda root: write(root, [], listed=2), "val.txt: image 'a b' is named twice"),
        (lambda root: (root / 'VOC2007/JPEGImages/a b.jpg').unlink(), 'a b.jpg does not exist, but'),
        (lambda root: (root / 'VOC2007/Annotations/a b.xml').unlink(), 'a b.xml cannot be read'),
        (lambda root: (root / 'VOC2007/Annotations/a b.xml').write_text('<a>'), 'a b.xml is no XML file'),
        (lambda root: (root / 'VOC2007/ImageSets/Main/val.txt').unlink(), 'val.txt does not exist'),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, capsys, change, text):
    write(tmp_path, [('cup', 0, 1, 1, 5, 5)])
    change(tmp_path)
    assert run(tmp_path, '--classes', 'cup', '--splits', 'val') != 0
    assert text in capsys.readouterr().err
    assert not (tmp_path / 'annotations' / 'val.json').exists()


def test_classes_are_named_once(tmp_path, capsys):
    write(tmp_path, [('cup', 0, 1, 1, 5, 5)])
    assert run(tmp_path, '--classes', 'cup', 'cup', '--splits', 'val') != 0
    assert "--classes: 'cup' is named twice" in capsys.readouterr().err
