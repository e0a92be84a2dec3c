"""The holdout that weights are chosen by: two disjoint lists of whole images, and a config that points at them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config

from kd_det.bench.holdout import split_off
from kd_det.errors import ConfigError, DataError
from kd_det.registry import DATASETS


def write_coco(path: Path, images: int) -> Path:
    """Images with ids 10, 20, …; image i has i annotations, so that some have none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [dict(id=10 * (i + 1), file_name=f'{i}.png', width=64, height=64) for i in range(images)]
    boxes = [
        dict(id=100 * i + k, image_id=10 * (i + 1), category_id=1, bbox=[k, 0, 9, 9], area=81, iscrowd=0)
        for i in range(images)
        for k in range(i % 3)
    ]
    path.write_text(json.dumps(dict(images=listed, annotations=boxes, categories=[dict(id=1, name='person')])))
    return path


def coco(root: Path, name: str = 'train', **more) -> dict:
    return dict(
        type='CocoDataset',
        data_root=f'{root}/',
        ann_file=f'annotations/{name}.json',
        data_prefix=dict(img=f'{name}/'),
        metainfo=dict(classes=('person',)),
        pipeline=[],
        **more,
    )


def config(train: dict, val: dict, evaluator) -> Config:
    return Config(dict(train_dataloader=dict(dataset=train), val_dataloader=dict(dataset=val), val_evaluator=evaluator))


@pytest.fixture
def root(tmp_path) -> Path:
    write_coco(tmp_path / 'set' / 'annotations' / 'train.json', 20)
    write_coco(tmp_path / 'set' / 'annotations' / 'val.json', 5)
    return tmp_path / 'set'


def plain(root: Path) -> Config:
    evaluator = dict(type='CocoMetric', ann_file=f'{root}/annotations/val.json')
    return config(coco(root), coco(root, 'val', test_mode=True), evaluator)


def test_coco_parts_are_disjoint_and_complete(root, tmp_path):
    cfg = split_off(plain(root), 0.25, 3, tmp_path / 'split')
    whole = json.loads((root / 'annotations' / 'train.json').read_text())
    files = cfg.train_dataloader.dataset.ann_file, cfg.val_dataloader.dataset.ann_file
    stays, held = (json.loads(Path(file).read_text()) for file in files)
    assert (len(stays['images']), len(held['images'])) == (15, 5)
    order = {image['id']: at for at, image in enumerate(whole['images'])}
    for part in (stays, held):
        ids = [image['id'] for image in part['images']]
        assert ids == sorted(ids, key=order.get)
        assert part['annotations'] == [box for box in whole['annotations'] if box['image_id'] in ids]
        assert part['categories'] == whole['categories']
    together = [image['id'] for part in (stays, held) for image in part['images']]
    assert sorted(together) == sorted(order)
    assert whole == json.loads((root / 'annotations' / 'train.json').read_text())


def test_validation_reads_the_holdout_from_the_training_images(root, tmp_path):
    cfg = plain(root)
    cfg.val_dataloader.dataset.data_root = 'elsewhere/'
    split_off(cfg, 0.25, 0, tmp_path / 'split')
    target = cfg.val_dataloader.dataset
    assert target.data_root == f'{root}/' and target.data_prefix == dict(img='train/')
    assert cfg.val_evaluator.ann_file == target.ann_file and Path(target.ann_file).is_absolute()
    held = {image['id'] for image in json.loads(Path(target.ann_file).read_text())['images']}
    data = DATASETS.build(target)  # mmdet's own reading of it
    assert {data.get_data_info(i)['img_id'] for i in range(len(data))} == held and target.test_mode
    assert all(data.get_data_info(i)['img_path'].startswith(f'{root}/train/') for i in range(len(data)))
    train = DATASETS.build(cfg.train_dataloader.dataset)
    assert not held & {train.get_data_info(i)['img_id'] for i in range(len(train))} and len(train) == 15


def test_the_choice_follows_seed_and_share_only(root, tmp_path):
    def held(seed, folder, share=0.25):
        return Path(split_off(plain(root), share, seed, tmp_path / folder).val_dataloader.dataset.ann_file).read_text()

    assert held(0, 'a') == held(0, 'b') != held(1, 'c')
    assert len(json.loads(held(0, 'd', 0.999))['images']) == 19  # something is left to train on
    assert len(json.loads(held(0, 'e', 0.001))['images']) == 1


def test_inside_wrappers_each_set_gives_its_share(root, tmp_path):
    write_coco(tmp_path / 'other' / 'annotations' / 'train.json', 8)  # a file of the same name
    both = dict(type='ConcatDataset', datasets=[coco(root), coco(tmp_path / 'other')])
    repeated = dict(type='RepeatDataset', times=3, dataset=both)
    evaluators = [dict(type='CocoMetric', ann_file='old'), dict(type='DumpDetResults', out_file_path='x.pkl')]
    cfg = config(repeated, dict(type='ConcatDataset', datasets=[coco(root, 'val'), coco(root, 'val')]), evaluators)
    split_off(cfg, 0.25, 0, tmp_path / 'split')
    inner = cfg.train_dataloader.dataset.dataset.datasets
    assert [len(json.loads(Path(each.ann_file).read_text())['images']) for each in inner] == [15, 6]
    target = cfg.val_dataloader.dataset  # one set is validated on, and nothing of the validation images
    assert target.type == 'CocoDataset' and target.data_root == f'{root}/'
    assert len(json.loads(Path(target.ann_file).read_text())['images']) == 5
    assert cfg.val_evaluator[0].ann_file == target.ann_file and 'ann_file' not in cfg.val_evaluator[1]


def test_a_prefix_of_the_validation_set_does_not_stay(root, tmp_path):
    train = coco(root)
    del train['data_prefix']
    cfg = config(train, coco(root, 'val'), dict(type='CocoMetric'))
    split_off(cfg, 0.25, 0, tmp_path / 'split')
    assert 'data_prefix' not in cfg.val_dataloader.dataset and 'ann_file' not in cfg.val_evaluator


def voc(root: Path, year: int, name: str) -> dict:
    return dict(
        type='VOCDataset',
        data_root=f'{root}/',
        ann_file=f'VOC{year}/ImageSets/Main/{name}.txt',
        data_prefix=dict(sub_data_root=f'VOC{year}/'),
        pipeline=[],
    )


def test_voc_lists_are_split_by_name(tmp_path):
    root = tmp_path / 'VOCdevkit'
    for year, count in ((2007, 10), (2012, 20)):
        path = root / f'VOC{year}' / 'ImageSets' / 'Main' / 'trainval.txt'
        path.parent.mkdir(parents=True)
        path.write_text(''.join(f'{year}_{i:03d}\n' for i in range(count)))
    both = dict(type='ConcatDataset', datasets=[voc(root, 2007, 'trainval'), voc(root, 2012, 'trainval')])
    repeated = dict(type='RepeatDataset', times=3, dataset=both)
    cfg = config(repeated, voc(root, 2007, 'test'), dict(type='VOCMetric', metric='mAP', eval_mode='11points'))
    split_off(cfg, 0.2, 0, tmp_path / 'split')
    first, second = (Path(each.ann_file).read_text().split() for each in cfg.train_dataloader.dataset.dataset.datasets)
    target = cfg.val_dataloader.dataset
    held = Path(target.ann_file).read_text().split()
    assert (len(first), len(second), len(held)) == (8, 16, 2)
    assert sorted(first + held) == [f'2007_{i:03d}' for i in range(10)] and first == sorted(first)
    assert target.data_prefix.sub_data_root == 'VOC2007/' and target.type == 'VOCDataset'


def test_what_cannot_be_split_is_refused(root, tmp_path):
    cfg = plain(root)
    cfg.train_dataloader.dataset.ann_file = 'annotations/absent.json'
    with pytest.raises(DataError, match=r"absent\.json' cannot be read"):
        split_off(cfg, 0.25, 0, tmp_path / 'split')
    for name in ('annotations/train.csv', '', None):
        cfg.train_dataloader.dataset.ann_file = name
        with pytest.raises(ConfigError, match='ends in .json .COCO. or .txt .VOC.'):
            split_off(cfg, 0.25, 0, tmp_path / 'split')
    cfg.train_dataloader.dataset.ann_file = 'annotations/train.json'
    for text in ('{"images"', '{"annotations": []}', '[]'):
        (root / 'annotations' / 'train.json').write_text(text)
        with pytest.raises(DataError, match='is no COCO file'):
            split_off(cfg, 0.25, 0, tmp_path / 'split')
    write_coco(root / 'annotations' / 'train.json', 1)
    with pytest.raises(DataError, match='found 1 images, expected 2 or more'):
        split_off(cfg, 0.25, 0, tmp_path / 'split')
    assert not (tmp_path / 'split').exists()
