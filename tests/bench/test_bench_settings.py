"""The settings of configs/bench: they load, their pairs fit, and every method of every setting makes its plan.

One model per setting holds the terms of all its methods, so that one dry forward checks them together. Models of
settings for a GPU take seconds each and are marked slow; without them (``-m 'not slow'``) what is left is the synthetic
settings and, for all, what can be read from the configs.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from mmdet.registry import DATASETS, MODELS
from tiny_models import distiller

from kd_det.bench.catalogue import METHODS, find_method
from kd_det.bench.part import detector_config
from kd_det.bench.setting import leaves, load_setting

ROOT = Path(__file__).resolve().parents[2]
FILES = {path.stem: path for path in sorted((ROOT / 'configs' / 'bench').glob('*.py'))}
COCO = [name for name in FILES if name.startswith('coco_')]
VOC = [name for name in FILES if name.startswith('voc0712_')]
BCCD = [name for name in FILES if name.startswith('bccd_')]
CARDS = [name for name in FILES if name.startswith('cards_')]
SYNTHETIC = [name for name in FILES if name.startswith('synthetic_')]
#: Pairs whose families differ: the levels that they share.
SHARED_STRIDES = dict.fromkeys(
    (
        'synthetic_hetero', 'bccd_hetero', 'cards_hetero', 'bccd_cpu_hetero', 'cards_cpu_hetero',
        'cards_cpu_hetero_long', 'coco_faster_retina',
    ),
    {8, 16, 32},
)  # fmt: skip
BY_SIZE_ALONE = {
    'bccd_cpu_hetero_long', 'bccd_cpu_hetero_quarter_long', 'bccd_cpu_hetero_half_long',
    'bccd_cpu_hetero_half_large_long', 'bccd_cpu_hetero_inherit_long', 'cards_cpu_hetero_quarter',
}  # fmt: skip


def header(name):
    lines = FILES[name].read_text().splitlines()
    return lines[: next(i for i, line in enumerate(lines) if not line.startswith('#'))]


def head(model):
    return model.roi_head.bbox_head if 'roi_head' in model else model.bbox_head


def classes(leaf):
    return tuple((leaf.get('metainfo') or {}).get('classes') or DATASETS.get(leaf.type).METAINFO['classes'])


def pretrained(value):
    """Whether a config asks for weights by name."""
    if isinstance(value, dict):
        return value.get('type') == 'Pretrained' or any(map(pretrained, value.values()))
    return isinstance(value, (list, tuple)) and any(map(pretrained, value))


def plan_of(setting):
    """The plan of all methods of a setting in one model, with terms named ``<method>.<term>``."""
    terms = {}
    for method in setting.methods.values():
        for term, cfg in method.distill().items():
            if cfg['loss']['type'] == 'kd_det.CRDLoss':
                cfg['loss']['n_data'] = 10  # otherwise the hook counts the set
            terms[f'{method.name}-{term}'] = cfg
    student, teacher = (detector_config(setting.config(who)).to_dict() for who in ('student', 'teacher'))
    model = distiller(student, teacher, terms, init=False)
    assert {row.term for row in model.plan.rows} == set(terms)
    return model.plan


def test_every_setting_belongs_to_a_group():
    assert sorted([*COCO, *VOC, *BCCD, *CARDS, *SYNTHETIC]) == sorted(FILES)
    cards = {name.replace('cards_', 'bccd_', 1) for name in CARDS}
    assert cards - {*BCCD} == {'bccd_cpu_hetero_quarter'}
    assert {*BCCD} - cards == {
        'bccd_cpu_ssd_mapped', 'bccd_cpu_ssd_inherit_long', 'bccd_cpu_hetero_quarter_long',
        'bccd_cpu_hetero_half_long', 'bccd_cpu_hetero_half_large_long', 'bccd_cpu_hetero_inherit_long',
    }  # fmt: skip


@pytest.mark.parametrize('name', FILES)
def test_setting_loads_and_its_pair_fits(name):
    setting = load_setting(FILES[name])
    assert len(setting.seeds) >= 3
    assert re.search(r'\b(CPU|GPU)\b', ' '.join(header(name))), 'the header says on what it runs'
    assert all(find_method(method.fragment).name in METHODS for method in setting.methods.values())
    teacher, student = setting.config('teacher'), setting.config('student')
    names = {classes(leaf) for cfg in (teacher, student) for leaf in leaves(cfg.train_dataloader.dataset)}
    names |= {classes(leaf) for cfg in (teacher, student) for leaf in leaves(cfg.val_dataloader.dataset)}
    assert len(names) == 1, 'teacher and student know the same classes in the same order'
    assert {head(cfg.model).num_classes for cfg in (teacher, student)} == {len(*names)}
    ann_files = [
        [(leaf.data_root, leaf.ann_file) for leaf in leaves(cfg[f'{split}_dataloader'].dataset)]
        for cfg in (teacher, student)
        for split in ('train', 'val')
    ]
    assert ann_files[0] == ann_files[2] and ann_files[1] == ann_files[3], 'one data set'
    assert not set(ann_files[0]) & set(ann_files[1]), 'nothing is measured on training images'


def test_an_inherited_neck_of_another_family_fills_the_student():
    setting = load_setting(FILES['bccd_cpu_hetero_inherit_long'])
    teacher, student = (MODELS.build(setting.config(who).model.neck).state_dict() for who in ('teacher', 'student'))
    assert setting.inherit == ('neck',)
    assert {name: value.shape for name, value in student.items()}.items() <= {
        name: value.shape for name, value in teacher.items()
    }.items()


def test_larger_images_of_both_are_those_of_their_own_pair():
    larger, own = (load_setting(FILES[name]) for name in ('bccd_cpu_hetero_half_large_long', 'bccd_cpu'))
    sizes = {
        tuple(step.scale)
        for setting in (larger, own)
        for cfg in map(setting.config, ('teacher', 'student'))
        for split in ('train', 'val', 'test')
        for leaf in leaves(cfg[f'{split}_dataloader'].dataset)
        for step in leaf.pipeline
        if step.type == 'Resize'
    }
    assert sizes == {(240, 180)}


@pytest.mark.parametrize('name', [*SYNTHETIC, *BCCD, *CARDS])
def test_settings_to_run_at_once_download_nothing_and_tune(name):
    setting = load_setting(FILES[name])
    assert setting.teacher_checkpoint is None and setting.tune is not None
    for who in ('teacher', 'student'):
        assert not pretrained(setting.config(who).model.to_dict()), who
    assert (setting.synthetic is not None) == (name in SYNTHETIC)
    teacher, student = (setting.config(who).train_cfg.max_epochs for who in ('teacher', 'student'))
    assert student == teacher if name.endswith('_long') else student < teacher


@pytest.mark.parametrize('name', [*COCO, *VOC])
def test_published_schedules(name):
    """Images a step are those that mmdet's learning rate is for, and the header gives the epochs of the config."""
    setting = load_setting(FILES[name])
    cfg = setting.config('student')
    images = cfg.train_dataloader.batch_size * cfg.optim_wrapper.get('accumulative_counts', 1)
    assert images == cfg.auto_scale_lr.base_batch_size
    epochs = cfg.train_cfg.max_epochs
    if name in COCO:
        epochs *= cfg.train_dataloader.dataset.get('times', 1)
        assert f'{epochs} epochs of {images} images' in ' '.join(header(name))
    else:
        assert f'{epochs} epochs of thrice the set' in ' '.join(header(name))
        assert cfg.train_dataloader.dataset.times == 3
    warm_up = [each for each in cfg.param_scheduler if not each.get('by_epoch', True)]
    assert [each.end // cfg.optim_wrapper.get('accumulative_counts', 1) for each in warm_up] in ([500], [])
    assert bool(warm_up) == (name in COCO)


@pytest.fixture(scope='module')
def zoo():
    """mmdet's own records: file of a config -> (URL of its weights, box mAP on COCO)."""
    folder = Path(importlib.util.find_spec('mmdet').origin).parent / '.mim' / 'configs'
    found = {}
    for metafile in folder.glob('*/metafile.yml'):
        content = yaml.safe_load(metafile.read_text())
        for model in content['Models'] if isinstance(content, dict) else content:
            metrics = {k: v for each in model.get('Results') or [] for k, v in (each.get('Metrics') or {}).items()}
            if model.get('Weights') and model.get('Config') and 'box AP' in metrics:
                found[folder / model['Config'].removeprefix('configs/')] = (model['Weights'], metrics['box AP'])
    return found


@pytest.mark.parametrize('name', COCO)
def test_published_teachers_are_the_zoos(name, zoo):
    setting = load_setting(FILES[name])
    url, figure = zoo[setting.teacher]
    assert setting.teacher_checkpoint == url
    assert f'{figure} mAP' in header(name)[0]


@pytest.mark.parametrize('name', SYNTHETIC)
def test_synthetic_methods_make_their_plan(name):
    plan = plan_of(load_setting(FILES[name]))
    check_strides(name, plan)


@pytest.mark.slow
@pytest.mark.parametrize('name', [*BCCD, *CARDS, *COCO, *VOC])
def test_methods_of_larger_settings_make_their_plan(name):
    plan = plan_of(load_setting(FILES[name]))
    check_strides(name, plan)


def check_strides(name, plan):
    """Maps that are compared have equal strides, also where two families meet; by size the student's are the double."""
    pairs = {False: [], True: []}
    for row in plan.rows:
        found = [re.search(r'/(\d+)$', side) for side in (row.student, row.teacher)]
        if all(found):
            pairs['_by_size' in row.term].append(tuple(int(match[1]) for match in found))
    assert bool(pairs[False]) == (name not in BY_SIZE_ALONE)
    assert all(ours == theirs for ours, theirs in pairs[False])
    assert all(ours == 2 * theirs for ours, theirs in pairs[True])
    if name in SHARED_STRIDES:
        assert {stride for pair in pairs[False] for stride in pair} == SHARED_STRIDES[name]
    if name in BY_SIZE_ALONE.union(SHARED_STRIDES):
        assert {theirs for _, theirs in pairs[True]} == {4, 8, 16, 32}


@pytest.mark.parametrize('name', SHARED_STRIDES)
def test_two_families_name_the_levels_that_they_share(name):
    setting = load_setting(FILES[name])
    for method in setting.methods.values():
        taps = {(term['student'], term['teacher']) for term in method.distill().values()}
        assert taps == {('neck[0:4]',) * 2 if method.name.endswith('_by_size') else ('neck[0:3]', 'neck[1:4]')}
    assert setting.config('student').model.neck.get('start_level', 0) == 1
    assert setting.config('teacher').model.neck.get('start_level', 0) == 0
