"""The set as mmdet sees it, and the transform that keeps images in memory."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

import kd_det  # noqa: F401
from kd_det.datasets import CLASSES, PALETTE, LoadImageOnce, SyntheticSpec, synthetic, write_synthetic
from kd_det.registry import DATASETS

SPEC = SyntheticSpec(seed=1, train=12, val=4, empty=0.3)


@pytest.fixture(scope='module')
def config(tmp_path_factory, request):
    root = tmp_path_factory.mktemp('data') / 'set'
    write_synthetic(root, SPEC)
    cfg = Config.fromfile(request.config.rootpath / 'configs' / '_base_' / 'datasets' / 'synthetic.py')
    cfg.train_dataloader.dataset.data_root = cfg.val_dataloader.dataset.data_root = str(root)
    return cfg


def test_config_gives_the_drawn_scenes(config):
    init_default_scope('mmdet')
    data = DATASETS.build(config.val_dataloader.dataset)
    assert data.metainfo['classes'] == CLASSES and data.metainfo['palette'] == list(PALETTE) and len(data) == 4
    for index in range(4):
        scene, sample = synthetic._scene(SPEC, 'val', index), data[index]
        np.testing.assert_array_equal(sample['inputs'].numpy(), scene.image[..., ::-1].transpose(2, 0, 1))
        found = sample['data_samples'].gt_instances
        np.testing.assert_array_equal(found.bboxes.tensor.numpy(), scene.boxes)
        np.testing.assert_array_equal(found.labels.numpy(), scene.labels)


def test_empty_images_stay_in_the_training_set(config):
    init_default_scope('mmdet')
    data = DATASETS.build(config.train_dataloader.dataset)
    counts = [len(data.get_data_info(i)['instances']) for i in range(len(data))]
    assert len(data) == 12 and 0 in counts


def test_images_are_read_once_and_cannot_be_spoilt(tmp_path):
    write_synthetic(tmp_path / 'set', SPEC)
    paths = [str(tmp_path / 'set' / 'train' / f'00000{i}.png') for i in range(3)]
    load = LoadImageOnce(max_images=2)
    first = [load(dict(img_path=path)) for path in paths]
    original = first[0]['img'].copy()
    first[0]['img'][:] = 0
    for path in paths[:2]:
        (tmp_path / 'set' / 'train' / path).unlink()
    again = load(dict(img_path=paths[0]))
    np.testing.assert_array_equal(again['img'], original)
    assert again['img_shape'] == again['ori_shape'] == first[0]['ori_shape'] == (160, 160)
    again['img'][:] = 0
    np.testing.assert_array_equal(load(dict(img_path=paths[0]))['img'], original)
    assert load(dict(img_path=paths[2]))['img'].any()  # beyond max_images: read from its file, which is still there
    (tmp_path / 'set' / 'train' / paths[2]).unlink()
    with pytest.raises(FileNotFoundError):
        load(dict(img_path=paths[2]))
