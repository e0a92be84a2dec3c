"""Distillation configs at the command line: the plan, and every kind of wrong input, as a user would give it."""

import pickle

import pytest
import torch
from test_train import RETINA, refused, tool
from tiny import tiny_options, write_tiny_coco

from kd_det.engine import guarded, prepare_train, run_train
from kd_det.engine.arguments import parse_train
from kd_det.registry import MODELS

CONFIG = """
_base_ = {base!r}
student = _base_.model
student.backbone.init_cfg = None
student.neck.out_channels = 16
student.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
model = dict(
    _delete_=True, type='kd_det.DistillDetector', student=student,
    teacher=dict(config=dict(model=student), checkpoint={teacher!r}),
    distill=dict(cwd=dict(student='neck', teacher='neck', loss=dict(type='kd_det.CWDLoss', tau=1.0))))
"""


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp('distilled')
    coco = write_tiny_coco(root / 'coco', n_train=1, n_val=1)
    (root / 'kd.py').write_text(CONFIG.format(base=RETINA, teacher=str(root / 'teacher.pth')))
    from kd_det.engine import load_config

    weights = MODELS.build(load_config(root / 'kd.py').model.student).state_dict()
    torch.save(dict(state_dict=weights), root / 'teacher.pth')
    (root / 'half.pth').write_bytes((root / 'teacher.pth').read_bytes()[:100000])
    other = {**weights, 'bbox_head.retina_cls.weight': torch.zeros(9 * 20, 16, 3, 3)}
    del other['neck.lateral_convs.0.conv.weight']
    torch.save(dict(state_dict=other), root / 'other.pth')
    with open(root / 'evil.pth', 'wb') as file:
        pickle.dump(dict(state_dict=print), file, protocol=2)
    return root, coco


def train(argv):
    run_train(prepare_train(parse_train(argv)))


def test_print_plan_needs_no_checkpoint_and_no_data(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / 'kd.py'
    config.write_text(CONFIG.format(base=RETINA, teacher='https://example.invalid/none.pth'))
    options = [
        '--cfg-options',
        'model.teacher.config.model.neck.out_channels=24',
        'model.teacher.config.model.bbox_head.in_channels=24',
    ]
    assert guarded(tool('print_plan').main, [str(config), *options]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith('cwd ')]
    assert [row[1] for row in rows] == ['0', '1', '2', '3', '4']
    assert [row[4] for row in rows] == ['/8', '/16', '/32', '/64', '/128']
    assert all('16→24' in row for row in rows)
    assert 'nothing to distil' in refused([RETINA], tool('print_plan').main)


TERM = 'model.distill.cwd'
BAD = {
    'wrong student tap': ([f'{TERM}.student=nek'], ['distill.cwd.student', "'nek'", "'neck'"]),
    'wrong teacher tap': ([f'{TERM}.teacher=neck.fpn_conv.1.conv'], ['distill.cwd.teacher', "'neck.fpn_convs.1.conv'"]),
    'level past the end': ([f'{TERM}.student=neck[7]'], ['distill.cwd.student', 'neck[7]', '5']),
    'level counts differ': ([f'{TERM}.student=neck[1:4]'], ['distill.cwd', '3', '5']),
    'unknown loss': ([f'{TERM}.loss.type=kd_det.CWDLos'], ['CWDLos', "'kd_det.CWDLoss'"]),
    'unknown loss option': ([f'{TERM}.loss.tua=2'], ['distill.cwd.loss', "'tua'", "'tau'"]),
    'unknown key of a term': ([f'{TERM}.wieght=2'], ['distill.cwd', "'wieght'", "'weight'"]),
    'unknown key of the teacher': (['model.teacher.chekpoint=a.pth'], ['model.teacher', "'chekpoint'", "'checkpoint'"]),
    'unknown teacher config': (
        ['model.teacher.config=mmdet::retinanet/retinanet_r18_fpn_2x_coco.py'],
        ['model.teacher.config', 'retinanet_r18_fpn_1x_coco.py'],
    ),
    'unknown part to inherit': (['model.inherit=[nekc]'], ['model.inherit', "'nekc'", "'neck'"]),
    'unknown task loss': (['model.task_weights.loss_clss=2'], ['model.task_weights', "'loss_clss'", "'loss_cls'"]),
    'other classes than the data': (
        ['model.student.bbox_head.num_classes=3'],
        ['model.student.bbox_head.num_classes', 'found 3', '80 classes'],
    ),
    'other classes than the teacher': (
        [
            'model.student.bbox_head.num_classes=2',
            'train_dataloader.dataset.metainfo.classes=(person,bicycle)',
            f'{TERM}.student=bbox_head[0]',
            f'{TERM}.teacher=bbox_head[0]',
        ],
        ['distill.cwd', '18', '720'],
    ),
    'misspelt part of the model': (['model.distil.a=1'], ["unknown key 'distil'", "'distill'"]),
    'teacher checkpoint missing': (
        ['model.teacher.checkpoint={root}/teecher.pth'],
        ['model.teacher.checkpoint', "'teacher.pth'"],
    ),
    'teacher checkpoint truncated': (
        ['model.teacher.checkpoint={root}/half.pth'],
        ['model.teacher.checkpoint', 'truncated'],
    ),
    'teacher of another architecture': (
        ['model.teacher.checkpoint={root}/other.pth'],
        [
            'model.teacher.checkpoint',
            '1 missing',
            'neck.lateral_convs.0.conv.weight',
            '1 mis-shaped',
            '(180, 16, 3, 3)',
        ],
    ),
    'teacher checkpoint with code': (
        ['model.teacher.checkpoint={root}/evil.pth'],
        ['model.teacher.checkpoint', 'holds code', 'print'],
    ),
}


@pytest.mark.parametrize('case', BAD)
def test_wrong_input_ends_in_one_clear_error(case, files, tmp_path):
    root, coco = files
    options, parts = BAD[case]
    argv = [
        str(root / 'kd.py'),
        '--work-dir',
        str(tmp_path),
        '--cfg-options',
        *tiny_options(coco, scale=64),
        'train_cfg.val_begin=9',
        *[option.format(root=root) for option in options],
    ]
    text = refused(argv, train)
    for part in parts:
        assert part in text, text
    assert not list(tmp_path.rglob('*.pth*')) and not (tmp_path / 'last_checkpoint').exists()


@pytest.mark.parametrize(
    'options, what',
    [
        (['schedule.begin=0', 'schedule.warmup=2'], 'schedule'),
        (
            ['loss._delete_=True', 'loss.type=kd_det.CWDLoss', 'loss.tau.type=kd_det.CurriculumTemperature'],
            'loss.tau=CurriculumTemperature',
        ),
    ],
)
def test_a_schedule_needs_its_hook(files, tmp_path, options, what):
    """A child's custom_hooks replace those of distill_runtime.py; the term would stay off, or its temperature's
    curriculum at its first epoch, and nobody would notice."""
    root, coco = files
    options = [f'{TERM}.{option}' for option in options]
    argv = [str(root / 'kd.py'), '--work-dir', str(tmp_path), '--cfg-options', *tiny_options(coco, scale=64), *options]
    text = refused(argv, train)
    for part in ('custom_hooks', f'distill.cwd.{what}', 'kd_det.TermScheduleHook'):
        assert part in text, text
    hooks = tmp_path / 'hooks.py'
    hooks.write_text(f"_base_ = {str(root / 'kd.py')!r}\ncustom_hooks = [dict(type='kd_det.TermScheduleHook')]\n")
    prepare_train(parse_train([str(hooks), *argv[1:]]))


def test_the_same_config_without_the_mistakes_trains(files, tmp_path):
    root, coco = files
    argv = [
        str(root / 'kd.py'),
        '--work-dir',
        str(tmp_path),
        '--cfg-options',
        *tiny_options(coco, scale=64),
        'train_cfg.val_begin=9',
    ]
    assert guarded(train, argv) == 0
    assert (tmp_path / 'epoch_1.pth').exists()
