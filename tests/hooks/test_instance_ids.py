"""Instance ids through mmdet's own data sets and transforms: the colour under each box says whose it is."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from tiny_models import distiller, retina
from torch.utils.data import DataLoader

from kd_det.datasets.instance_ids import give_ids
from kd_det.engine.preflight import check_train
from kd_det.errors import ConfigError, DataError
from kd_det.hooks import InstanceIdHook

register_all_modules(init_default_scope=True)

NAMES = ('a', 'b', 'c')
#: Per image: (class, ignored) of each object; the second image is empty and is filtered out.
SCENES = [[(0, 0), (2, 1), (1, 0)], [], [(1, 0)], [(2, 1), (0, 0), (0, 0), (2, 0)]]


def colour(number):
    """BGR of an object: its number is told by green, in steps wider than any blur at the middle of a box."""
    return (255, 10 * (number + 1), 0)


def number_under(image, box):
    """The number of the object in the middle of a box, from an image (3, H, W)."""
    x, y = ((box[:2] + box[2:]) / 2).int().tolist()
    blue, green, red = (int(v) for v in image[:, min(y, image.shape[1] - 1), min(x, image.shape[2] - 1)])
    assert blue > 200 and red < 30
    return round(green / 10) - 1


def draw(folder, scene, name, first):
    """A picture with separate rectangles; returns boxes xyxy."""
    image, boxes = np.zeros((96, 128, 3), np.uint8), []
    for place in range(len(scene)):
        x, y = 4 + 62 * (place % 2), 4 + 46 * (place // 2)
        boxes.append([x, y, x + 50, y + 36])
        cv2.rectangle(image, (x, y), (x + 50, y + 36), colour(first + place), -1)
    cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
    return boxes


def write_coco(folder, first=0):
    """Four images; colours count from ``first`` in the order of the annotation file, empty image included."""
    folder.mkdir(parents=True)
    images, annotations = [], []
    for index, scene in enumerate(SCENES):
        for (label, crowd), (x1, y1, x2, y2) in zip(
            scene, draw(folder, scene, f'{index}.png', first + len(annotations))
        ):
            annotations.append(
                dict(
                    id=len(annotations), image_id=index, category_id=label, iscrowd=crowd, ignore=0, area=1800,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                )
            )  # fmt: skip
        images.append(dict(id=index, file_name=f'{index}.png', height=96, width=128))
    categories = [dict(id=index, name=name) for index, name in enumerate(NAMES)]
    (folder / 'ann.json').write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return dict(
        type='CocoDataset', data_root=f'{folder}/', ann_file='ann.json', metainfo=dict(classes=NAMES),
        filter_cfg=dict(filter_empty_gt=True), data_prefix=dict(img=''),
    )  # fmt: skip


def write_voc(folder, first=0):
    """The same scenes in VOC's layout; ignored objects are 'difficult'."""
    images, annotations = folder / 'VOC2007' / 'JPEGImages', folder / 'VOC2007' / 'Annotations'
    for made in (images, annotations):
        made.mkdir(parents=True)
    count = first
    for index, scene in enumerate(SCENES):
        objects = ''
        for (label, difficult), (x1, y1, x2, y2) in zip(scene, draw(images, scene, f'{index}.jpg', count)):
            objects += (
                f'<object><name>{NAMES[label]}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1 + 1}</xmin>'
                f'<ymin>{y1 + 1}</ymin><xmax>{x2 + 1}</xmax><ymax>{y2 + 1}</ymax></bndbox></object>'
            )
        count += len(scene)
        size = '<size><width>128</width><height>96</height><depth>3</depth></size>'
        (annotations / f'{index}.xml').write_text(f'<annotation>{size}{objects}</annotation>')
    (folder / 'train.txt').write_text('\n'.join(map(str, range(len(SCENES)))))
    return dict(
        type='VOCDataset', data_root=f'{folder}/', ann_file='train.txt', data_prefix=dict(sub_data_root='VOC2007/'),
        img_subdir='JPEGImages', filter_cfg=dict(filter_empty_gt=True), metainfo=dict(classes=NAMES),
    )  # fmt: skip


LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
PACK = [dict(type='FilterAnnotations', min_gt_bbox_wh=(6, 6), keep_empty=False), dict(type='PackDetInputs')]
NEAREST = dict(type='Resize', scale=(256, 192), keep_ratio=True, interpolation='nearest')
TURNS = dict(type='RandomFlip', prob=0.7, direction=['horizontal', 'vertical'])
AUGMENT = {
    'plain': [],
    'flip': [NEAREST, TURNS],
    'crop': [TURNS, dict(type='RandomCrop', crop_size=(70, 90), allow_negative_crop=False)],
    'iou-crop': [dict(type='MinIoURandomCrop', min_ious=(0.1, 0.5), min_crop_size=0.4), NEAREST],
    'shift': [dict(type='RandomShift', prob=1.0, max_shift_px=20, filter_thr_px=4)],
    'affine': [dict(type='RandomAffine', max_rotate_degree=0, max_shear_degree=0, max_translate_ratio=0.3)],
    'cached mosaic': [
        dict(type='CachedMosaic', img_scale=(128, 96), pad_val=0, max_cached_images=4, random_pop=False),
        TURNS,
    ],
}
LABELS = [label for scene in SCENES for label, _ in scene]
IGNORED = [bool(crowd) for scene in SCENES for _, crowd in scene]


def check(packed, first=0):
    """Ids, labels and places of one image fit; returns the ids, of objects and of ignored ones."""
    sample, seen = packed['data_samples'], []
    for name, ignored in (('gt_instances', False), ('ignored_instances', True)):
        instances = sample.get(name)
        assert instances.labels.dtype == instances.instance_ids.dtype == torch.int64
        for box, label, number in zip(
            instances.bboxes.tensor, instances.labels.tolist(), instances.instance_ids.tolist()
        ):
            assert number == number_under(packed['inputs'], box) - first
            assert label == LABELS[number % len(LABELS)] and ignored == IGNORED[number % len(LABELS)]
            seen.append(number)
    return seen


@pytest.mark.parametrize('name', AUGMENT)
@pytest.mark.parametrize('write', [write_coco, write_voc])
def test_through_a_pipeline(tmp_path, name, write):
    dataset = DATASETS.build(dict(**write(tmp_path / 'set'), pipeline=[*LOAD, *AUGMENT[name], *PACK]))
    labels, _ = give_ids(dataset)
    assert labels.tolist() == LABELS and len(dataset) == 3
    seen = set()
    for _ in range(1 if name == 'plain' else 8):
        for index in range(len(dataset)):
            seen |= set(check(dataset[index]))
    assert seen == set(range(len(LABELS)))


def wrapped(tmp_path, pipeline=(), **outer):
    """Two sets of COCO and one of VOC, joined and repeated."""
    pipeline = [*LOAD, *pipeline]
    sets = [
        dict(**write_coco(tmp_path / 'one'), pipeline=pipeline),
        dict(**write_voc(tmp_path / 'two', 8), pipeline=pipeline),
        dict(**write_coco(tmp_path / 'three', 16), pipeline=pipeline, serialize_data=False),
    ]
    ignore = ['dataset_type', 'palette']
    return dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=sets, ignore_keys=ignore))


def test_wrappers_and_worker_processes(tmp_path):
    dataset = DATASETS.build(wrapped(tmp_path, [NEAREST, TURNS, *PACK]))
    labels, _ = give_ids(dataset)
    assert labels.tolist() == 3 * LABELS
    for _ in range(2):  # calling it again is harmless
        loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=pseudo_collate)
        seen = [
            check(dict(inputs=image, data_samples=sample))
            for data in loader
            for image, sample in zip(data['inputs'], data['data_samples'])
        ]
        assert sorted(sum(seen, [])) == sorted(2 * list(range(24)))
        give_ids(dataset)
    kinds = [type(step).__name__ for step in dataset.dataset.datasets[0].pipeline.transforms]
    assert kinds.count('MarkInstances') == kinds.count('ReadInstances') == 1


def test_mosaic_and_mixup(tmp_path):
    """YOLOX's wrapper; MixUp blends two pictures, so that the colours tell only without it."""
    mosaic = dict(type='Mosaic', img_scale=(128, 96), pad_val=0, center_ratio_range=(0.8, 1.2))
    pipeline = [
        mosaic,
        dict(
            type='RandomAffine', max_rotate_degree=0, max_shear_degree=0, border=(-64, -48), scaling_ratio_range=(1, 1)
        ),
        dict(type='MixUp', img_scale=(128, 96), ratio_range=(0.8, 1.6), pad_val=0),
        dict(type='YOLOXHSVRandomAug'),
        dict(type='RandomFlip', prob=0.5),
        *PACK,
    ]
    inner = wrapped(tmp_path)
    dataset = DATASETS.build(dict(type='MultiImageMixDataset', dataset=inner, pipeline=pipeline))
    labels, _ = give_ids(dataset)
    give_ids(dataset)
    assert len(labels) == 24
    seen = set()
    for index in range(2 * len(dataset)):
        sample = dataset[index % len(dataset)]['data_samples']
        ids = sample.gt_instances.instance_ids
        assert (ids >= 0).all() and sample.gt_instances.labels.tolist() == labels[ids.numpy()].tolist()
        seen |= set(ids.tolist())
    assert len(seen) > 12
    dataset.update_skip_type_keys(['MixUp', 'YOLOXHSVRandomAug'])
    where = [check(dataset[index]) for index in range(len(dataset))]
    assert max(len(ids) for ids in where) > 4  # more than any one picture has
    dataset.update_skip_type_keys(['Mosaic', 'RandomAffine', 'MixUp', 'YOLOXHSVRandomAug'])
    assert sorted(sum((check(dataset[index]) for index in range(9)), [])) == list(range(24))


def test_a_label_that_a_transform_brings_has_no_id(tmp_path):
    dataset = DATASETS.build(dict(**write_coco(tmp_path / 'set'), pipeline=[*LOAD, *PACK]))
    _, read = give_ids(dataset)
    labels, ids = read.decode(torch.tensor([2, 3 + 4, 0]))
    assert labels.tolist() == [2, LABELS[4], 0] and ids.tolist() == [-1, 4, -1]
    with pytest.raises(DataError, match='label of 11, expected less than 11'):
        read.decode(torch.tensor([11]))
    assert [x.shape for x in read.decode(torch.zeros(0, dtype=torch.long))] == [(0,), (0,)]


def test_what_cannot_carry_ids(tmp_path):
    cfg = write_coco(tmp_path / 'set')
    with pytest.raises(ConfigError, match='CocoDataset has no PackDetInputs'):
        give_ids(DATASETS.build(dict(**cfg, pipeline=LOAD)))
    with pytest.raises(ConfigError, match='list cannot carry instance ids; expected a data set of mmdet'):
        give_ids([1, 2])
    prompts = dict(type='RandomSamplingNegPos', tokenizer_name='x')
    with pytest.raises(ConfigError, match='RandomSamplingNegPos looks at labels'):
        from kd_det.datasets.instance_ids import read_after_packing

        read_after_packing([*LOAD, prompts, *PACK], None)


CRD = dict(
    student='neck', teacher='neck', adapter=dict(type='kd_det.Instances'), loss=dict(type='kd_det.CRDLoss', nce_k=4)
)


def runner(tmp_path, name, hooks=(), epochs=1, resume=False, n_data=None, **options):
    if not (tmp_path / 'set').exists():
        write_coco(tmp_path / 'set')
    cfg = dict(
        type='CocoDataset', data_root=f'{tmp_path}/set/', ann_file='ann.json', metainfo=dict(classes=NAMES),
        filter_cfg=dict(filter_empty_gt=True), data_prefix=dict(img=''), pipeline=[*LOAD, TURNS, *PACK],
    )  # fmt: skip
    terms = dict(crd=dict(CRD, loss=dict(CRD['loss'], n_data=n_data)))
    return Runner(
        model=distiller(retina(), retina(channels=24), terms),
        work_dir=str(tmp_path / name),
        train_dataloader=dict(
            batch_size=2, num_workers=0, dataset=cfg, sampler=dict(type='DefaultSampler', shuffle=True)
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        custom_hooks=[dict(type='kd_det.InstanceIdHook'), *hooks],
        randomness=dict(seed=0),
        resume=resume,
        default_scope='mmdet',
        experiment_name=f'{tmp_path.name}_{name}_{epochs}',
        **options,
    )


class Watch(InstanceIdHook):
    """Notes the memory as training starts, and the ids of each batch."""

    priority = 'VERY_LOW'

    def before_run(self, runner):
        self.ids = []

    def before_train(self, runner):
        self.memory = {k: v.clone() for k, v in runner.model.distill['crd'].losses[0].named_buffers()}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.ids += [i for s in data_batch['data_samples'] for i in s.gt_instances.instance_ids.tolist()]


def test_the_memory_is_sized_trained_saved_and_resumed(tmp_path):
    objects = [i for i, ignored in enumerate(IGNORED) if not ignored]
    first = Watch()
    run = runner(tmp_path, 'w', [dict(type='EMAHook'), first])
    run.train()
    loss = run.model.distill['crd'].losses[0]
    assert loss.n_data == len(LABELS) and first.memory['memory_v1'].shape == (8, 128)
    assert sorted(first.ids) == objects
    moved = (loss.memory_v1 != first.memory['memory_v1']).any(1).nonzero().flatten().tolist()
    assert moved == objects and loss.Z_v1 > 0
    saved = torch.load(tmp_path / 'w' / 'epoch_1.pth', weights_only=False)
    for state, prefix in ((saved['state_dict'], ''), (saved['ema_state_dict'], 'module.')):
        assert torch.equal(state[f'{prefix}distill.crd.losses.0.memory_v1'], loss.memory_v1)

    second = Watch()
    resumed = runner(tmp_path, 'w', [dict(type='EMAHook'), second], epochs=2, resume=True)
    resumed.train()
    assert resumed.iter == 4
    for name, value in second.memory.items():
        assert torch.equal(value, loss.get_buffer(name)), name
    later = resumed.model.distill['crd'].losses[0]
    assert torch.equal(later.Z_v1, loss.Z_v1) and not torch.equal(later.memory_v1, loss.memory_v1)

    plain = distiller(retina(), retina(channels=24), dict(crd=CRD))  # without data, as for testing
    plain.load_state_dict(torch.load(tmp_path / 'w' / 'epoch_2.pth', weights_only=False)['state_dict'])
    assert torch.equal(plain.distill['crd'].losses[0].memory_v2, later.memory_v2)


def test_later_pipelines_carry_ids_too(tmp_path):
    watch = Watch()
    switch = dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=[*LOAD, *PACK])
    run = runner(tmp_path, 'w', [switch, watch], epochs=2)
    run.train()
    assert len(run.train_dataloader.dataset.pipeline.transforms) == len(LOAD + PACK) + 2
    assert sorted(watch.ids) == sorted(2 * [i for i, ignored in enumerate(IGNORED) if not ignored])
    assert switch['switch_pipeline'] == [*LOAD, *PACK]


def test_a_memory_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(ConfigError, match='distill.crd.loss.n_data: found 7, expected at least 8'):
        runner(tmp_path, 'w', n_data=7).train()
    run = runner(tmp_path, 'v', n_data=9)
    run.train()
    assert run.model.distill['crd'].losses[0].memory_v1.shape == (9, 128)


def test_a_config_without_the_hook_is_refused_before_the_run():
    cfg = Config.fromfile(Path(__file__).parents[2] / 'configs' / 'crd_faster_r101_r50.py')
    assert [hook.type for hook in cfg.custom_hooks][-1] == 'kd_det.InstanceIdHook'
    del cfg.custom_hooks[-1]
    with pytest.raises(ConfigError, match='custom_hooks: no InstanceIdHook.*distill.crd.loss'):
        check_train(cfg)


def test_a_balanced_set(tmp_path):
    inner = dict(**write_coco(tmp_path / 'set'), pipeline=[*LOAD, *PACK])
    dataset = DATASETS.build(dict(type='ClassBalancedDataset', dataset=inner, oversample_thr=0.9))
    give_ids(dataset)
    assert len(dataset) > 3
    assert set(sum((check(dataset[index]) for index in range(len(dataset))), [])) == set(range(len(LABELS)))
