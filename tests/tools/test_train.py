"""``tools/train.py``: what it accepts, what it refuses, what a run leaves behind."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loaded_tool import tool
from mmengine.config import Config
from tiny import tiny_options, write_tiny_coco

from kd_det.engine import guarded, load_config, prepare_train, run_train
from kd_det.engine.arguments import parse_train
from kd_det.errors import ConfigError

ROOT = Path(__file__).parents[2]
RETINA = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
SMALL = [
    'model.backbone.init_cfg=None',
    'model.neck.out_channels=16',
    'model.bbox_head.in_channels=16',
    'model.bbox_head.feat_channels=16',
    'model.bbox_head.stacked_convs=1',
    'randomness.seed=0',
]


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    return write_tiny_coco(tmp_path_factory.mktemp('coco'))


def options(coco, *more, scale=64):
    return ['--cfg-options', *tiny_options(coco, scale=scale), *SMALL, *more]


# --- good input -------------------------------------------------------------------------------------------------------


def test_plain_mmdet_config_trains_stops_and_resumes(coco, tmp_path):
    through = [
        RETINA,
        '--work-dir',
        str(tmp_path / 'through'),
        *options(coco, 'train_cfg.max_epochs=2', 'train_cfg.val_begin=9'),
    ]
    assert guarded(tool('train').main, through) == 0
    kill = tmp_path / 'child.py'  # the same run, whose second epoch is cut short by an error
    kill.write_text(
        f"_base_ = {RETINA!r}\ncustom_imports = dict(imports=['kd_det'])\n"
        "custom_hooks = [dict(type='StopBeforeEpoch', epoch=1)]\n"
    )
    from mmengine.hooks import Hook
    from mmengine.registry import HOOKS

    class StopBeforeEpoch(Hook):
        def __init__(self, epoch):
            self.epoch = epoch

        def before_train_epoch(self, runner):
            if runner.epoch == self.epoch and not runner._resume:
                raise InterruptedError

    HOOKS.register_module(module=StopBeforeEpoch, force=True)
    stopped = [str(kill), '--work-dir', str(tmp_path / 'stopped'), *through[3:]]
    with pytest.raises(InterruptedError):
        guarded(tool('train').main, stopped)
    assert (tmp_path / 'stopped' / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    assert guarded(tool('train').main, [*stopped[:3], '--resume', *stopped[3:]]) == 0
    ends = [torch.load(tmp_path / run / 'epoch_2.pth') for run in ('through', 'stopped')]
    assert ends[0]['meta']['iter'] == ends[1]['meta']['iter'] == 4
    # the order of the images after resuming is mmengine's affair; the schedule and the step count are not
    for key in ('last_step', '_global_step', '_last_value'):
        assert [s[key] for s in ends[0]['param_schedulers']] == [s[key] for s in ends[1]['param_schedulers']]
    assert not list((tmp_path / 'stopped').glob('.*.part'))


def test_auto_scale_lr_and_amp_reach_the_config(coco, tmp_path, monkeypatch):
    import mmengine.device

    monkeypatch.setattr(mmengine.device, 'get_device', lambda: 'cuda')  # --amp is refused on a CPU
    argv = [RETINA, '--work-dir', str(tmp_path), '--amp', '--auto-scale-lr', *options(coco)]
    cfg = prepare_train(parse_train(argv))
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper' and cfg.optim_wrapper.loss_scale == 'dynamic'
    assert cfg.auto_scale_lr == dict(enable=True, base_batch_size=16)
    assert cfg.optim_wrapper.optimizer == load_config(RETINA).optim_wrapper.optimizer


def test_work_dir_by_argument_then_config_then_name(coco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_name = prepare_train(parse_train([RETINA, *options(coco)]))
    assert by_name.work_dir == 'work_dirs/retinanet_r18_fpn_1x_coco'
    by_config = prepare_train(parse_train([RETINA, *options(coco, 'work_dir=of_config')]))
    assert by_config.work_dir == 'of_config'
    by_argument = prepare_train(parse_train([RETINA, '--work-dir', 'given', *options(coco, 'work_dir=of_config')]))
    assert by_argument.work_dir == 'given'


def test_resume_without_a_checkpoint_begins_from_load_from(coco, tmp_path):
    """A job that always gives --resume must not lose the config's load_from on its first start."""
    weights = dict(state_dict={'backbone.conv1.weight': torch.zeros(64, 3, 7, 7)})
    torch.save(weights, tmp_path / 'start.pth')
    argv = [RETINA, '--work-dir', str(tmp_path / 'w'), '--resume', *options(coco, f'load_from={tmp_path}/start.pth')]
    cfg = prepare_train(parse_train(argv))
    assert cfg.load_from == f'{tmp_path}/start.pth' and not cfg.get('resume')
    training = dict(weights, meta=dict(epoch=1), message_hub={})
    torch.save(training, tmp_path / 'w' / 'epoch_1.pth')
    cfg = prepare_train(parse_train(argv))
    assert cfg.load_from == str(tmp_path / 'w' / 'epoch_1.pth') and cfg.resume


def test_wrapped_datasets_are_checked_and_pass(coco, tmp_path):
    leaf = load_config(RETINA, dict(o.split('=', 1) for o in tiny_options(coco)[:3])).train_dataloader.dataset
    child = tmp_path / 'child.py'
    wrapped = dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[leaf.to_dict()] * 2))
    child.write_text(f'_base_ = {RETINA!r}\ntrain_dataloader = dict(dataset=dict(_delete_=True, **{wrapped!r}))\n')
    keep = [o for o in options(coco) if not o.startswith('train_dataloader.dataset')]
    prepare_train(parse_train([str(child), '--work-dir', str(tmp_path / 'w'), *keep]))
    broken = 'train_dataloader.dataset.dataset.datasets.1.ann_file=annotations/none.json'
    assert 'train_dataloader.dataset.dataset.datasets[1].ann_file: annotation file' in refused(
        [str(child), '--work-dir', str(tmp_path / 'w'), *keep, broken]
    )


def test_voc_layout_is_checked(tmp_path):
    voc = 'mmdet::pascal_voc/retinanet_r50_fpn_1x_voc0712.py'
    root = tmp_path / 'VOCdevkit'
    for year in ('VOC2007', 'VOC2012'):
        for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
            (root / year / folder).mkdir(parents=True)
        for split in ('trainval', 'test'):
            (root / year / 'ImageSets' / 'Main' / f'{split}.txt').write_text('1\n')
    leaf = 'train_dataloader.dataset.dataset.datasets'
    argv = [
        voc,
        '--work-dir',
        str(tmp_path / 'w'),
        '--cfg-options',
        f'{leaf}.0.data_root={root}/',
        f'{leaf}.1.data_root={root}/',
        f'val_dataloader.dataset.data_root={root}/',
    ]
    prepare_train(parse_train(argv))
    (root / 'VOC2012' / 'Annotations').rename(root / 'VOC2012' / 'Annotation')
    text = refused(argv)
    assert f'{leaf}[1].ann_subdir: folder' in text and "Nearest: 'Annotation'" in text


# --- bad input --------------------------------------------------------------------------------------------------------


def refused(argv, main=None):
    """Run, expect status 2, and return what is on stderr, one line."""
    import contextlib
    import io

    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr):
        status = guarded(main or (lambda args: prepare_train(parse_train(args))), argv)
    lines = [
        line for line in stderr.getvalue().splitlines() if 'UserWarning' not in line and 'warnings.warn' not in line
    ]
    # several errors of one config are shown together, as a list below the first line
    assert status == 2 and lines[0].startswith('error: '), stderr.getvalue()
    assert all(line.startswith('- ') for line in lines[1:]), stderr.getvalue()
    return '\n'.join(lines)


def bad_cases(coco, tmp_path):
    """Name → (arguments, what the message must hold)."""
    file = tmp_path / 'file'
    file.touch()
    empty = tmp_path / 'empty.json'
    empty.touch()
    no_model = tmp_path / 'no_model.py'
    no_model.write_text('a = 1\n')
    no_teacher = tmp_path / 'no_teacher.py'
    no_teacher.write_text(
        "model = dict(type='kd_det.DistillDetector', student=dict(type='RetinaNet'), techer=dict(a=1))\n"
    )
    no_config = tmp_path / 'no_config.py'
    no_config.write_text(
        "model = dict(type='kd_det.DistillDetector', student=dict(type='RetinaNet'),\n"
        "             teacher=dict(cfg='x.py'), distill=dict(a=dict()))\n"
    )
    lost_base = tmp_path / 'lost_base.py'
    lost_base.write_text("_base_ = 'not_there.py'\n")
    broken = tmp_path / 'broken.py'
    broken.write_text('model = dict(\n')
    half = tmp_path / 'half.pth'
    torch.save(dict(state_dict=dict(a=torch.ones(500))), half)
    half.write_bytes(half.read_bytes()[:700])
    slim, distilled = tmp_path / 'slim.pth', tmp_path / 'distilled.pth'
    torch.save(dict(state_dict={'backbone.a': torch.ones(2)}, meta=dict(epoch=1)), slim)
    torch.save(dict(state_dict={'student.a': torch.ones(2), 'distill.a': torch.ones(2)}), distilled)
    razor = tmp_path / 'razor.pth'
    torch.save(dict(state_dict={'architecture.a': torch.ones(2), 'teacher.a': torch.ones(2)}), razor)
    good = options(coco)
    kd = tmp_path / 'kd.py'
    kd.write_text(
        f"_base_ = {RETINA!r}\nmodel = dict(_delete_=True, type='kd_det.DistillDetector', student=_base_.model,\n"
        "             teacher=dict(config='mmdet::x.py'), distill=dict(a=dict(student='neck')))\n"
    )
    data = ['--cfg-options', *tiny_options(coco)]
    return {
        'no such config': (['configs/fgd_retina.py'], ['config:', 'does not exist']),
        'no such mmdet config': (
            ['mmdet::retinanet/retinanet_r50_fpn_3x_coco.py'],
            ['retinanet_r50_fpn_3x_coco.py', "'retinanet_r50_fpn_2x_coco.py'"],
        ),
        'no such mmdet folder': (['mmdet::retina/x.py'], ["'retina'", "'retinanet'"]),
        'no such package': (['mmdte::retinanet/x.py'], ["no package 'mmdte'", "'mmdet'"]),
        'base is missing': ([str(lost_base)], ['lost_base.py', 'a base of it does not exist', 'not_there.py']),
        'syntax error': ([str(broken)], ['broken.py', 'SyntaxError']),
        'no model': ([str(no_model)], ['model: None']),
        'no teacher': ([str(no_teacher)], ['model.teacher: None', "Nearest: 'techer'"]),
        'no teacher config': ([str(no_config)], ['model.teacher.config: None', "Nearest: 'cfg'"]),
        'no annotation file': (
            [RETINA, *good, 'train_dataloader.dataset.ann_file=annotations/instances_tran2017.json'],
            ['train_dataloader.dataset.ann_file', 'does not exist', "'instances_train2017.json'"],
        ),
        'empty annotation file': (
            [RETINA, *good, f'val_dataloader.dataset.ann_file={empty}'],
            ['val_dataloader.dataset.ann_file', 'is empty'],
        ),
        'no image folder': (
            [RETINA, *good, 'val_dataloader.dataset.data_prefix.img=val2007'],
            ['val_dataloader.dataset.data_prefix.img', 'val2007', "'val2017'"],
        ),
        'no data at all': ([RETINA], ['train_dataloader.dataset.data_root', "'data/coco/'"]),
        'no file for the metric': (
            [RETINA, *good, 'val_evaluator.ann_file=x.json'],
            ['val_evaluator.ann_file', 'x.json'],
        ),
        'work dir is below a file': (
            [RETINA, *good, '--work-dir', str(file / 'run')],
            ['work_dir', 'cannot be written'],
        ),
        'no checkpoint to resume': ([RETINA, *good, '--resume', str(tmp_path / 'hal.pth')], ['resume:', "'half.pth'"]),
        'truncated checkpoint': ([RETINA, *good, '--resume', str(half)], ['resume:', 'truncated']),
        'no checkpoint to load': ([RETINA, *good, f'load_from={tmp_path}/hal.pth'], ['load_from:', "'half.pth'"]),
        'resume from weights alone': (
            [RETINA, *good, '--resume', str(slim)],
            ['resume:', 'not the state of a training'],
        ),
        'distillation from mmrazor': ([str(kd), *data, f'load_from={razor}'], ['load_from:', 'written by mmrazor']),
        'detector from a distillation': ([RETINA, *good, f'load_from={distilled}'], ['load_from:', 'export_student']),
        'option into a list': (
            [RETINA, *good, 'train_dataloader.dataset.pipeline.99.scale=1'],
            ['--cfg-options', '99'],
        ),
        'amp on a cpu': ([RETINA, *good, '--amp'], ['--amp', 'needs a GPU']),
        'auto-scale-lr without a base': (
            [RETINA, *good, 'auto_scale_lr=None', '--auto-scale-lr'],
            ['--auto-scale-lr', 'base_batch_size'],
        ),
        'nothing to train with': ([RETINA, *good, 'train_dataloader=None'], ['train_dataloader: None']),
    }


CASES = [
    'no such config',
    'no such mmdet config',
    'no such mmdet folder',
    'no such package',
    'base is missing',
    'syntax error',
    'no model',
    'no teacher',
    'no teacher config',
    'no annotation file',
    'empty annotation file',
    'no image folder',
    'no data at all',
    'no file for the metric',
    'work dir is below a file',
    'no checkpoint to resume',
    'truncated checkpoint',
    'no checkpoint to load',
    'resume from weights alone',
    'distillation from mmrazor',
    'detector from a distillation',
    'option into a list',
    'amp on a cpu',
    'auto-scale-lr without a base',
    'nothing to train with',
]


@pytest.mark.parametrize('case', CASES)
def test_bad_input_is_one_line_and_leaves_nothing(case, coco, tmp_path, monkeypatch):
    if case == 'amp on a cpu' and torch.cuda.is_available():
        pytest.skip('concerns machines without an accelerator')
    (tmp_path / 'in').mkdir()
    (tmp_path / 'cwd').mkdir()
    argv, parts = bad_cases(coco, tmp_path / 'in')[case]
    monkeypatch.chdir(tmp_path / 'cwd')
    text = refused(argv)
    for part in parts:
        assert part in text, text
    assert not [path for path in (tmp_path / 'cwd').rglob('*') if path.is_file()]


def test_unknown_types_name_the_nearest(coco, tmp_path):
    def main(argv):
        run_train(prepare_train(parse_train(argv)))

    base = [RETINA, '--work-dir', str(tmp_path)]
    assert "'FocalLos' is not a model of 'mmdet'. Nearest: 'FocalLoss'" in refused(
        [*base, *options(coco, 'model.bbox_head.loss_cls.type=FocalLos')], main
    )
    assert "Nearest: 'CheckpointHook'" in refused(
        [*base, *options(coco, 'default_hooks.checkpoint.type=ChekpointHook')], main
    )


def test_the_command_itself(tmp_path):
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), 'nowhere.py']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: config: 'nowhere.py' does not exist.")


def test_the_traceback_on_demand(monkeypatch):
    monkeypatch.setenv('KD_DET_TRACEBACK', '1')
    with pytest.raises(ConfigError):
        guarded(tool('train').main, ['nowhere.py'])


def test_errors_that_are_not_the_users_keep_their_traceback():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guarded(main)


def test_only_the_first_process_of_a_machine_prints(monkeypatch, capsys):
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert guarded(lambda argv: prepare_train(parse_train(argv)), ['nowhere.py']) == 2
    assert capsys.readouterr().err == ''


def test_results_can_be_read_back(coco, tmp_path):
    """The options of the command line are in the checkpoint's config, losses and the validation in the log."""
    argv = [RETINA, '--work-dir', str(tmp_path / 'w'), *options(coco, 'train_cfg.val_begin=0')]
    assert guarded(tool('train').main, argv) == 0
    checkpoint = torch.load(tmp_path / 'w' / 'epoch_1.pth')
    cfg = Config.fromstring(checkpoint['meta']['cfg'], '.py')
    assert cfg.model.neck.out_channels == 16 and cfg.model.backbone.init_cfg is None
    log = next((tmp_path / 'w').rglob('*.log')).read_text()
    assert 'loss_cls: ' in log and 'Evaluating bbox' in log
