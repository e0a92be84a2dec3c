"""Labels that are wrong on purpose: uniform, the same at each reading, boxes untouched; and a config that has them."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.config import Config

from kd_det.bench.cells import shuffle_labels
from kd_det.datasets.shuffle_labels import ShuffleLabels
from kd_det.errors import ConfigError
from kd_det.registry import TRANSFORMS


def image(img_id, labels) -> dict:
    labels = np.asarray(labels, dtype=np.int64)
    return dict(img_id=img_id, gt_bboxes=np.arange(4.0 * len(labels)).reshape(-1, 4), gt_bboxes_labels=labels)


def test_labels_are_the_same_each_time_and_differ_between_images_and_seeds():
    step = TRANSFORMS.build(dict(type='kd_det.ShuffleLabels', num_classes=20, seed=3))
    labels = np.zeros(50, dtype=np.int64)
    first = step(image(7, labels))['gt_bboxes_labels']
    assert np.array_equal(first, step(image(7, labels + 5))['gt_bboxes_labels'])  # nothing of the truth is left
    assert not np.array_equal(first, step(image(8, labels))['gt_bboxes_labels'])
    other = ShuffleLabels(20, seed=4)
    assert not np.array_equal(first, other(image(7, labels))['gt_bboxes_labels'])
    assert np.array_equal(first, ShuffleLabels(20, seed=3)(image(7, labels))['gt_bboxes_labels'])


def test_labels_are_uniform_over_all_classes_and_of_the_same_kind():
    step, drawn = ShuffleLabels(num_classes=4), []
    for number in range(500):
        result = step(image(number, [2, 2, 2, 2]))
        assert result['gt_bboxes_labels'].dtype == np.int64 and result['gt_bboxes_labels'].shape == (4,)
        assert np.array_equal(result['gt_bboxes'], np.arange(16.0).reshape(4, 4))
        drawn.append(result['gt_bboxes_labels'])
    counts = np.bincount(np.concatenate(drawn), minlength=4)
    assert len(counts) == 4
    assert ((counts - 500.0) ** 2 / 500).sum() < 16.27  # chi-square, 3 degrees of freedom, 0.1 %


def test_images_without_id_go_by_path_and_empty_ones_stay_empty():
    step = ShuffleLabels(num_classes=50)
    labels = np.zeros(20, dtype=np.int64)
    one, two = (
        step(dict(img_path=path, gt_bboxes_labels=labels.copy()))['gt_bboxes_labels'] for path in ('a.png', 'b.png')
    )
    assert not np.array_equal(one, two)
    assert step(image(1, []))['gt_bboxes_labels'].shape == (0,)


def test_the_place_before_the_annotations_is_an_error():
    with pytest.raises(ConfigError, match='expected a place after LoadAnnotations'):
        ShuffleLabels(num_classes=3)(dict(img_id=1))


def leaf(**more) -> dict:
    steps = ['LoadImageFromFile', 'mmdet.LoadAnnotations', 'RandomFlip', 'PackDetInputs']
    return dict(type='CocoDataset', pipeline=[dict(type=step) for step in steps], **more)


def test_each_training_set_gets_the_step_after_its_annotations():
    sets = [leaf(metainfo=dict(classes=('a', 'b'))), leaf()]
    cfg = Config(
        dict(
            train_dataloader=dict(
                dataset=dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=sets))
            ),
            val_dataloader=dict(dataset=leaf()),
        )
    )
    before = cfg.val_dataloader.to_dict()
    shuffle_labels(cfg, seed=5)
    for each, classes in zip(cfg.train_dataloader.dataset.dataset.datasets, (2, 80)):
        names = [step['type'] for step in each.pipeline]
        assert names[1:3] == ['mmdet.LoadAnnotations', 'kd_det.ShuffleLabels'] and len(names) == 5
        assert each.pipeline[2] == dict(type='kd_det.ShuffleLabels', num_classes=classes, seed=5)
    assert cfg.val_dataloader.to_dict() == before
    cfg.train_dataloader.dataset = dict(type='CocoDataset', pipeline=[dict(type='LoadImageFromFile')])
    with pytest.raises(ConfigError, match='no LoadAnnotations'):
        shuffle_labels(cfg, seed=5)
