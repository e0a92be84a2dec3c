"""The synthetic set: what is drawn, what is annotated, and what lies on the disk."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from kd_det.datasets import synthetic
from kd_det.datasets.synthetic import CLASSES, SyntheticSpec, check_synthetic, draw_scene, write_synthetic
from kd_det.errors import DataError

SPEC = SyntheticSpec(seed=3, train=24, val=6)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'set'
    assert write_synthetic(root, SPEC)
    return root


def digests(root: Path) -> dict[str, str]:
    files = (p for p in root.rglob('*') if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def scenes(count: int, objects: int = 6, **kwargs) -> list[synthetic.Scene]:
    return [draw_scene(np.random.default_rng(i), objects=objects, **kwargs) for i in range(count)]


def plain_box(mask: np.ndarray) -> list[int]:
    """Tight box by looking at one pixel after the other."""
    points = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return [min(xs), min(ys), max(xs) + 1, max(ys) + 1]


def test_same_seed_same_bytes_and_other_seed_other_bytes(folder, tmp_path):
    write_synthetic(tmp_path / 'again', SPEC)
    assert digests(tmp_path / 'again') == digests(folder)
    write_synthetic(tmp_path / 'other', SyntheticSpec(seed=4, train=24, val=6))
    ours, other = digests(folder), digests(tmp_path / 'other')
    assert ours.keys() == other.keys() and all(ours[name] != other[name] for name in ours)


def test_larger_set_begins_with_the_smaller_one(folder, tmp_path):
    write_synthetic(tmp_path / 'large', SyntheticSpec(seed=3, train=30, val=6))
    small, large = digests(folder), digests(tmp_path / 'large')
    images = [name for name in small if name.endswith('.png')]
    assert len(images) == 30 and all(small[name] == large[name] for name in images)


def test_boxes_are_tight_around_the_visible_pixels():
    count = 0
    for scene in scenes(6):
        for index, box in enumerate(scene.boxes):
            assert plain_box(scene.owner == index) == box.tolist()
            count += 1
    assert count >= 12


def test_owners_agree_with_the_painted_pixels():
    """Without texture and shading, a pixel has the colour of its owner or of the ground."""
    rng = np.random.default_rng(5)
    for name in CLASSES:
        window, cover, _, whole = synthetic._coverage(name, np.array([40.0, 33.0]), 20.0, rng.uniform(0, 6), 80)
        mask = np.zeros((80, 80))
        mask[window] = cover
        inside = mask >= 0.5
        x1, y1, x2, y2 = plain_box(inside)
        assert 19 <= x1 <= 40 <= x2 <= 61 and 12 <= y1 <= 33 <= y2 <= 54
        assert max(x2 - x1, y2 - y1) >= 28
        assert whole == inside.sum()
        assert (mask[inside] > 0.99).mean() > 0.7  # soft edges only


@pytest.mark.parametrize(
    'name, share',
    [
        ('square', 2 / np.pi),
        ('circle', 1.0),
        ('triangle', 3 * np.sqrt(3) / 4 / np.pi),
        ('star', 10 * 0.5 * 0.45 * np.sin(np.pi / 5) / np.pi),
        ('cross', (4 * 0.95 * 0.31 * 2 - 4 * 0.31**2) / np.pi),
        ('ring', 1 - 0.52**2),
    ],
)
def test_areas_are_those_of_geometry(name, share):
    """Area of each shape as a share of its circumscribed circle, against the formula of the figure."""
    _, cover, _, whole = synthetic._coverage(name, np.array([100.0, 100.0]), 80.0, 0.4, 200)
    assert whole / (np.pi * 80**2) == pytest.approx(share, rel=0.01)
    assert cover.sum() / (np.pi * 80**2) == pytest.approx(share, rel=0.01)


def test_all_that_is_annotated_is_half_visible():
    hidden = 0
    for scene in scenes(40):
        seen = np.array([(scene.owner == i).sum() for i in range(len(scene.labels))])
        assert (seen >= 0.5 * scene.areas).all() and (seen <= scene.areas).all()
        hidden += (seen < scene.areas).sum()
    assert hidden > 20


def test_overlaps_exist_and_shapes_cover_each_other():
    cut = 0
    for scene in scenes(20):
        for i, a in enumerate(scene.boxes):
            for b in scene.boxes[i + 1 :]:
                cut += bool((np.minimum(a[2:], b[2:]) > np.maximum(a[:2], b[:2])).all())
    assert cut > 20


def test_three_sizes_in_the_sense_of_coco():
    areas = np.concatenate([(s.boxes[:, 2:] - s.boxes[:, :2]).prod(axis=1) for s in scenes(80)])
    small, large = (areas < 32**2).mean(), (areas >= 96**2).mean()
    assert small > 0.25 and large > 0.05 and 1 - small - large > 0.25


def test_sizes_follow_the_image():
    half, full = (np.concatenate([s.boxes[:, 2] - s.boxes[:, 0] for s in scenes(80, image_size=n)]) for n in (80, 160))
    assert full.min() > 9 and full.mean() / half.mean() == pytest.approx(2, rel=0.2)


def test_files_are_a_valid_coco_set(folder, capsys):
    for split, count in (('train', 24), ('val', 6)):
        coco = COCO(str(folder / 'annotations' / f'{split}.json'))
        assert len(coco.getImgIds()) == count
        assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
        for info in coco.loadImgs(coco.getImgIds()):
            image = cv2.imread(str(folder / split / info['file_name']))
            assert image.shape == (info['height'], info['width'], 3) == (160, 160, 3)
        for annotation in coco.loadAnns(coco.getAnnIds()):
            x, y, w, h = annotation['bbox']
            assert 0 <= x and 0 <= y and x + w <= 160 and y + h <= 160 and w > 0 and h > 0
            assert annotation['area'] == w * h and annotation['iscrowd'] == 0


def test_files_hold_the_scenes(folder):
    """Pixels and boxes on the disk are those that were drawn, in the right channel order."""
    coco = json.loads((folder / 'annotations' / 'train.json').read_text())
    for index in (0, 7):
        scene = synthetic._scene(SPEC, 'train', index)
        stored = cv2.imread(str(folder / 'train' / f'{index:06d}.png'))
        np.testing.assert_array_equal(stored[..., ::-1], scene.image)
        mine = [a for a in coco['annotations'] if a['image_id'] == index + 1]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (a['bbox'] for a in mine)]
        assert boxes == scene.boxes.tolist()
        assert [a['category_id'] - 1 for a in mine] == scene.labels.tolist()


def test_some_images_are_empty(tmp_path):
    write_synthetic(tmp_path / 'set', SyntheticSpec(train=60, val=1, empty=0.2))
    coco = json.loads((tmp_path / 'set' / 'annotations' / 'train.json').read_text())
    full = {a['image_id'] for a in coco['annotations']}
    assert 3 <= 60 - len(full) <= 25


def test_intact_set_is_kept_and_damaged_one_is_replaced(folder, tmp_path):
    root = tmp_path / 'set'
    assert write_synthetic(root, SPEC)
    before = (root / 'manifest.json').stat().st_mtime_ns
    assert not write_synthetic(root, SPEC)
    assert (root / 'manifest.json').stat().st_mtime_ns == before
    image = root / 'train' / '000003.png'
    image.write_bytes(image.read_bytes()[:-1] + b'?')
    (root / 'val' / '000001.png').unlink()
    problems = check_synthetic(root, SPEC)
    assert len(problems) == 2 and '000003.png' in problems[0] and '000001.png' in problems[1]
    assert write_synthetic(root, SPEC)
    assert digests(root) == digests(folder)


def test_other_spec_is_replaced(tmp_path):
    root = tmp_path / 'set'
    write_synthetic(root, SyntheticSpec(train=2, val=1))
    assert write_synthetic(root, SyntheticSpec(train=3, val=1))
    assert len(list((root / 'train').iterdir())) == 3
    assert [p.name for p in tmp_path.iterdir()] == ['set']


def test_interrupted_writing_leaves_nothing_that_counts(tmp_path, monkeypatch):
    root, original, calls = tmp_path / 'set', synthetic._scene, []

    def stops(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(synthetic, '_scene', stops)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(root, SPEC)
    assert list(tmp_path.iterdir()) == []
    assert check_synthetic(root, SPEC)


def test_set_without_manifest_is_no_set(folder, tmp_path):
    write_synthetic(tmp_path / 'set', SyntheticSpec(train=2, val=1))
    (tmp_path / 'set' / 'manifest.json').unlink()
    assert 'manifest.json' in check_synthetic(tmp_path / 'set')[0]


def test_foreign_folder_is_not_touched(tmp_path):
    root = tmp_path / 'mine'
    root.mkdir()
    (root / 'thesis.txt').write_text('do not lose')
    with pytest.raises(DataError, match='something else'):
        write_synthetic(root, SPEC)
    assert (root / 'thesis.txt').read_text() == 'do not lose'


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() == 0, reason='root writes into read-only folders')
def test_read_only_place_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match='cannot be written'):
        write_synthetic(tmp_path / 'set', SPEC)


def test_place_that_is_a_file_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(DataError, match='cannot be written'):
        write_synthetic(tmp_path / 'file' / 'set', SPEC)


@pytest.mark.parametrize('wrong', [dict(train=0), dict(image_size=8), dict(empty=1.0), dict(seed=-1), dict(val=2.5)])
def test_wrong_specs_are_named(wrong):
    ((key, value),) = wrong.items()
    with pytest.raises(DataError, match=f'{key} is {value}'):
        SyntheticSpec(**wrong)
