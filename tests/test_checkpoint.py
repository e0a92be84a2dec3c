"""Reading, exporting and writing checkpoints."""

import hashlib
import os
import pickle
from collections import OrderedDict

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from kd_det.checkpoint import (
    atomic_path,
    checkpoint_kind,
    export_student,
    foreign_names,
    latest_checkpoint,
    load_checkpoint_safely,
    load_student,
    parse_config_text,
    student_config,
    student_state_dict,
)
from kd_det.errors import CheckpointError, ConfigError


@pytest.fixture
def good(tmp_path):
    path = tmp_path / 'good.pth'
    torch.save(dict(meta=dict(epoch=3), state_dict=OrderedDict(weight=torch.arange(1000.0))), path)
    return path


def error_of(path, **kwargs):
    with pytest.raises(CheckpointError) as info:
        load_checkpoint_safely(path, **kwargs)
    assert '\n' not in str(info.value)
    return str(info.value)


def test_good_and_bare_checkpoints_load(good, tmp_path):
    torch.testing.assert_close(load_checkpoint_safely(good)['state_dict']['weight'], torch.arange(1000.0))
    torch.save(OrderedDict(weight=torch.ones(2)), tmp_path / 'bare.pth')
    assert list(load_checkpoint_safely(tmp_path / 'bare.pth')['state_dict']) == ['weight']
    torch.save(dict(model=dict(weight=torch.ones(2)), epoch=1), tmp_path / 'timm.pth')
    assert list(load_checkpoint_safely(tmp_path / 'timm.pth')['state_dict']) == ['weight']
    torch.save(dict(weight=torch.ones(2)), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert list(load_checkpoint_safely(tmp_path / 'old.pth')['state_dict']) == ['weight']


def test_missing_file_names_the_key_and_the_nearest(good):
    text = error_of(good.with_name('god.pth'), key='teacher.checkpoint')
    assert text.startswith('teacher.checkpoint: ') and "does not exist. Nearest: 'good.pth'." in text
    assert 'The folder' in error_of(good.parent / 'nowhere' / 'good.pth')
    assert 'is a folder' in error_of(good.parent)


@pytest.mark.parametrize('share', [0, 0.02, 0.5, 0.999])
@pytest.mark.parametrize('zipped', [True, False])
def test_truncated_file(tmp_path, share, zipped):
    path = tmp_path / 'whole.pth'
    torch.save(dict(state_dict=dict(weight=torch.arange(1000.0))), path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    text = error_of(path)
    assert 'truncated' in text if zipped or share == 0 else 'damaged' in text


class Evil:
    def __reduce__(self):
        return os.mkdir, ('this_must_not_exist',)


@pytest.mark.parametrize(
    'write',
    [
        lambda path: torch.save(dict(state_dict=dict(weight=torch.ones(2)), hook=Evil()), path),
        lambda path: torch.save(nn.Linear(2, 2), path),
        lambda path: path.write_bytes(pickle.dumps(dict(state_dict=Evil()), protocol=2)),
        lambda path: torch.save(Evil(), path, _use_new_zipfile_serialization=False),
    ],
    ids=['zip', 'module', 'pickle', 'legacy'],
)
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / 'evil.pth')
    assert 'holds code or foreign objects' in error_of(tmp_path / 'evil.pth')
    assert not (tmp_path / 'this_must_not_exist').exists()


def test_what_is_no_checkpoint_is_told(tmp_path):
    path = tmp_path / 'page.pth'
    path.write_text('<html>404</html>')
    assert "is not a checkpoint of torch: it starts with b'<htm'" in error_of(path)
    torch.save(dict(a=1, b='c'), path)
    assert 'holds no weights' in error_of(path) and "['a', 'b']" in error_of(path)


# --- training checkpoints of mmengine ---------------------------------------------------------------------------------


class Killed(Exception):
    pass


class KillHook(Hook):
    """Ends the process, so to speak, before the epoch of that number."""

    def __init__(self, epoch):
        self.epoch = epoch

    def before_train_epoch(self, runner):
        if runner.epoch == self.epoch:
            raise Killed


def toy_runner(work_dir, epochs, resume=False, kill_before=None):
    from mmengine.model import BaseModel
    from torch.utils.data import DataLoader

    class Toy(BaseModel):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 1)

        def forward(self, inputs, mode='tensor'):
            out = self.linear(inputs)
            return dict(loss=out.square().mean()) if mode == 'loss' else out

    torch.manual_seed(3)
    generator = torch.Generator().manual_seed(0)
    data = [dict(inputs=torch.randn(3, generator=generator)) for _ in range(8)]
    return Runner(
        model=Toy(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(data, batch_size=4),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        resume=resume,
        randomness=dict(seed=1),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)),
        param_scheduler=[dict(type='OneCycleLR', eta_max=0.1, total_steps=16, by_epoch=False)],
        custom_hooks=[dict(type='EMAHook', momentum=0.5), KillHook(kill_before)],
        experiment_name=f'toy_{work_dir.name}_{epochs}_{resume}',
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        default_scope='mmengine',
    )


def test_mmengine_resumes_its_own_checkpoint_as_if_never_stopped(tmp_path):
    """Optimiser, schedule, EMA, message hub: a run that was killed half-way and resumed gives the same weights."""
    through = toy_runner(tmp_path / 'through', 4)
    through.train()
    with pytest.raises(Killed):
        toy_runner(tmp_path / 'stopped', 4, kill_before=2).train()
    resumed = toy_runner(tmp_path / 'stopped', 4, resume=True)
    resumed.train()
    assert resumed.epoch == 4
    torch.testing.assert_close(resumed.model.state_dict(), through.model.state_dict(), rtol=0, atol=0)
    loss = [r.message_hub.get_scalar('train/loss').data[0] for r in (through, resumed)]
    assert len(loss[0]) == len(loss[1]) == 8 and loss[0].tolist() == loss[1].tolist()


def test_training_checkpoint_loads_and_exports_the_averaged_weights(tmp_path):
    runner = toy_runner(tmp_path / 'run', 2)
    runner.train()
    checkpoint = load_checkpoint_safely(tmp_path / 'run' / 'epoch_2.pth')
    assert 'message_hub' in checkpoint and 'optimizer' in checkpoint
    written = torch.load(export_student(checkpoint, tmp_path / 'student.pth'), weights_only=True)
    assert set(written) == {'meta', 'state_dict'}
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model
    torch.testing.assert_close(dict(written['state_dict']), dict(ema.module.state_dict()), rtol=0, atol=0)
    assert not torch.equal(written['state_dict']['linear.weight'], runner.model.linear.weight)


def test_latest_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for epoch in (1, 2):
        torch.save(dict(state_dict=dict(a=torch.ones(1))), tmp_path / f'epoch_{epoch}.pth')
        os.utime(tmp_path / f'epoch_{epoch}.pth', (epoch, epoch))
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text(str(tmp_path / 'epoch_1.pth'))
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_1.pth')
    pointer.write_text('/moved/from/here/epoch_1.pth')
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_1.pth')
    pointer.write_text('')  # killed while writing it
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_2.pth')
    (tmp_path / 'epoch_2.pth').write_bytes((tmp_path / 'epoch_2.pth').read_bytes()[:300])  # killed while saving
    pointer.write_text(str(tmp_path / 'epoch_2.pth'))
    assert latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_1.pth')
    (tmp_path / 'epoch_1.pth').unlink()
    with pytest.raises(CheckpointError, match='no complete checkpoint'):
        latest_checkpoint(tmp_path)


# --- the student in it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'prefix, others, kind',
    [
        ('', [], 'mmdet'),
        ('student.', ['distill.fgd.losses.0.weight'], 'kd_det'),
        ('module.student.', ['module.distill.a'], 'kd_det'),
        ('student._orig_mod.', ['distill.a'], 'kd_det'),
        ('architecture.', ['teacher.linear.weight', 'distiller.connectors.a'], 'mmrazor'),
    ],
)
def test_student_weights_of_every_kind(prefix, others, kind):
    model = nn.Sequential(OrderedDict(linear=nn.Linear(2, 3), bn=nn.BatchNorm1d(3)))
    weights = OrderedDict((prefix + key, value) for key, value in model.state_dict().items())
    weights._metadata = OrderedDict(
        (f'{prefix}{name}'.rstrip('.'), value) for name, value in model.state_dict()._metadata.items()
    )
    for key in others:
        weights[key] = torch.zeros(1)
    assert checkpoint_kind(weights) == kind
    student = student_state_dict(dict(state_dict=weights))
    assert student.keys() == model.state_dict().keys()
    assert student._metadata == model.state_dict()._metadata  # BatchNorm2d of torch needs its version, DCN of mmcv too
    target = nn.Sequential(OrderedDict(linear=nn.Linear(2, 3), bn=nn.BatchNorm1d(3)))
    assert load_student(target, dict(state_dict=weights), 'a.pth') == []
    torch.testing.assert_close(target.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_semi_supervised_detectors_are_plain():
    assert checkpoint_kind({'student.backbone.a': 0, 'teacher.backbone.a': 0}) == 'mmdet'


def test_weights_that_do_not_fit_are_listed():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    with pytest.raises(
        CheckpointError, match=r"'a.pth' does not fit .* Sequential: 2 of 4 weights are missing .*1.weight"
    ):
        load_student(model, dict(state_dict=nn.Sequential(nn.Linear(2, 3)).state_dict()), 'a.pth')
    with pytest.raises(CheckpointError, match=r'1.weight is \(5, 3\), expected \(1, 3\), 1.bias'):
        load_student(model, dict(state_dict=nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5)).state_dict()), 'a.pth')
    extra = dict(state_dict={**model.state_dict(), '2.weight': torch.ones(1)})
    assert load_student(model, extra, 'a.pth') == ['2.weight']


# --- writing ----------------------------------------------------------------------------------------------------------


def test_atomic_path_leaves_nothing_behind_on_failure(tmp_path):
    target = tmp_path / 'file'
    target.write_text('old')
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text('half')
        raise RuntimeError
    assert target.read_text() == 'old' and [p.name for p in tmp_path.iterdir()] == ['file']
    with atomic_path(target) as temporary:
        temporary.write_text('new')
        assert target.read_text() == 'old'
    assert target.read_text() == 'new' and [p.name for p in tmp_path.iterdir()] == ['file']
    reference = tmp_path / 'reference'
    reference.touch()
    assert target.stat().st_mode == reference.stat().st_mode


DISTILLATION = """
checkpoint_config = dict(interval=1)
custom_hooks = [dict(type='kd_det.StudentCheckpointHook'), dict(type='NumClassCheckHook')]
custom_imports = dict(allow_failed_imports=False, imports=['kd_det'])
default_hooks = dict(logger=dict(interval=50, type='LoggerHook'))
default_scope = 'mmdet'
distill = dict(fgd=dict(student='neck', teacher='neck'))
model = dict(
    distill=dict(fgd=dict(student='neck', teacher='neck')),
    student=dict(
        backbone=dict(depth=50, frozen=-1),
        bbox_head=dict(limit=inf, text='inf', range=[(-inf, 1)]),
        type='RetinaNet'),
    teacher=dict(checkpoint=None, config='mmdet::x.py'),
    type='kd_det.DistillDetector')
student = dict(type='RetinaNet')
val_cfg = dict(type='mmrazor.SingleTeacherDistillValLoop')
"""


def test_export_writes_meta_hash_and_a_plain_config(tmp_path):
    weights = OrderedDict({'student.a': torch.ones(2), 'distill.b': torch.ones(1)})
    checkpoint = dict(
        state_dict=weights,
        optimizer={},
        message_hub={},
        ema_state_dict={},
        meta=dict(cfg=DISTILLATION, epoch=4, dataset_meta=dict(classes=('square', 'circle'))),
    )
    path = export_student(
        checkpoint,
        tmp_path / 'out' / 'student.pth',
        source='runs/epoch_4.pth',
        add_hash=True,
        config_out=tmp_path / 'out' / 'plain.py',
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert path.name == f'student-{digest}.pth' and sorted(os.listdir(path.parent)) == ['plain.py', path.name]
    written = torch.load(path, weights_only=True)
    assert list(written['state_dict']) == ['a'] and set(written) == {'meta', 'state_dict'}
    meta = written['meta']
    assert meta['dataset_meta'] == dict(classes=('square', 'circle')) and meta['epoch'] == 4
    assert meta['source'] == dict(file='epoch_4.pth', kind='kd_det')
    assert set(meta['versions']) == {'kd_det', 'mmdet', 'mmengine', 'torch'}
    for cfg in (Config.fromstring(meta['cfg'], '.py'), Config.fromfile(path.parent / 'plain.py')):
        assert cfg.model == dict(
            backbone=dict(depth=50, frozen=-1),
            type='RetinaNet',
            bbox_head=dict(limit=float('inf'), text='inf', range=[(-float('inf'), 1)]),
        )
        assert cfg.val_cfg == dict(type='ValLoop') and cfg.custom_hooks == [dict(type='NumClassCheckHook')]
        assert not {'student', 'distill', 'custom_imports'} & set(cfg.keys())


def test_export_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match='no weights of a student'):
        export_student(
            dict(state_dict={'distill.a': torch.ones(1), 'student.x': 3}), tmp_path / 'a.pth', source='b.pth'
        )
    with pytest.raises(ConfigError, match='Give it with --config'):
        export_student(dict(state_dict={'a': torch.ones(1)}), tmp_path / 'a.pth', config_out=tmp_path / 'c.py')
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigError, match='cannot be written'):
        export_student(dict(state_dict={'a': torch.ones(1)}), tmp_path / 'file' / 'a.pth')
    assert os.listdir(tmp_path) == ['file']


def test_plain_config_comes_back_equal_and_unchanged():
    cfg = Config(dict(model=dict(type='RetinaNet', backbone=dict(depth=50)), val_cfg=dict(type='ValLoop'), student=1))
    assert student_config(cfg).to_dict() == cfg.to_dict()
    distillation = parse_config_text(DISTILLATION)
    before = distillation.pretty_text
    student_config(distillation)
    assert distillation.pretty_text == before


def test_plain_config_loads_images_without_kd_det():
    once = dict(type='kd_det.LoadImageOnce', max_images=9, backend_args=None)
    kept = dict(type='LoadImageFromFile', backend_args=None)
    data = dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=[once, dict(type='PackDetInputs')])))
    for cfg in (parse_config_text(DISTILLATION), Config(dict(model=dict(type='RetinaNet')))):
        cfg.train_dataloader = data
        cfg.custom_imports = dict(imports=['kd_det', 'mine'])
        plain = student_config(cfg)
        assert plain.train_dataloader.dataset.dataset.pipeline == [kept, dict(type='PackDetInputs')]
        assert plain.custom_imports.imports == ['mine'] and foreign_names(plain) == []
        assert cfg.train_dataloader.dataset.dataset.pipeline[0] == once


@pytest.mark.parametrize('scoped', [True, False])
def test_plain_config_loads_images_without_kd_det_whatever_names_the_class(scoped):
    import kd_det

    once = dict(type='LoadImageOnce', _scope_='kd_det') if scoped else dict(type=kd_det.datasets.LoadImageOnce)
    cfg = Config(dict(model=dict(type='RetinaNet'), pipeline=(once,), custom_imports=dict(imports='kd_det')))
    plain = student_config(cfg)
    assert list(plain.pipeline) == [dict(type='LoadImageFromFile')] and 'custom_imports' not in plain


@pytest.mark.parametrize(
    'part, names, imports',
    [
        (dict(type='SyntheticDataset', _scope_='kd_det'), ['kd_det.SyntheticDataset'], ['kd_det']),
        (
            dict(constructor='mmrazor.SeparateOptimWrapperConstructor'),
            ['mmrazor.SeparateOptimWrapperConstructor'],
            ['kd_det', 'mmrazor'],
        ),
        (dict(load_from='kd_det.pth', work_dir='runs/kd_det.v2', type='mmdet.CocoDataset', _scope_='kd_det'), [], []),
    ],
)
def test_what_a_plain_config_still_needs(part, names, imports):
    cfg = Config(dict(model=dict(type='RetinaNet'), part=[part], custom_imports=dict(imports=['kd_det', 'mmrazor'])))
    assert foreign_names(cfg) == names
    assert student_config(cfg).get('custom_imports', dict(imports=[]))['imports'] == imports


def test_plain_config_keeps_the_import_that_its_data_set_needs():
    cfg = parse_config_text(DISTILLATION)
    cfg.train_dataloader = dict(dataset=dict(type='kd_det.SyntheticDataset'))
    plain = student_config(cfg)
    assert plain.custom_imports.imports == ['kd_det'] and foreign_names(plain) == ['kd_det.SyntheticDataset']


@pytest.mark.parametrize(
    'cfg, text',
    [(dict(), 'model: None'), (dict(model=dict(type='kd_det.DistillDetector', teacher=dict())), 'model.student: None')],
)
def test_config_without_student(cfg, text):
    with pytest.raises(ConfigError, match=text):
        student_config(Config(cfg))


def test_config_text_is_read_as_mmengine_reads_it():
    from mmengine.hub import get_config

    cfg = get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    assert parse_config_text(cfg.pretty_text).to_dict() == cfg.to_dict()


@pytest.mark.parametrize(
    'text',
    [
        "a = __import__('os').mkdir('this_must_not_exist')",
        'import os',
        'a = dict(**b)',
        'a = [x for x in (1,)]',
        'a.b = 1',
        'a = print',
        'a = (',
        'a = dict(1)',
    ],
)
def test_config_text_is_never_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match='--config|with --config'):
        parse_config_text(text)
    assert not os.listdir(tmp_path)
