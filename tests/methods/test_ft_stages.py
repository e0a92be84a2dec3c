"""FT: paraphrasers first, by themselves; then the transfer with them."""

import copy
import logging
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from steps import fragment, run_method
from tiny import tiny_options, write_tiny_coco
from tiny_models import batch, build, distiller, faster, fcos, gfl, raw_batch, retina
from torch.utils.data import DataLoader

from kd_det.checkpoint import checkpoint_kind, export_student, load_checkpoint_safely
from kd_det.engine import prepare_train, run_train
from kd_det.engine.arguments import parse_train
from kd_det.engine.preflight import _check_schedules, check_teacher_file
from kd_det.errors import CheckpointError, ConfigError
from kd_det.hooks import StudentCheckpointHook
from kd_det.losses import FTLoss
from kd_det.registry import MODELS

CONFIGS = Path(__file__).parents[2] / 'configs'
FAMILIES = [retina, fcos, gfl, faster]
TEACHER = dict(channels=24, base=16)


def trainer(teacher=None, terms=None, checkpoint=None, seed=0):
    torch.manual_seed(seed)
    model = MODELS.build(
        dict(
            type='kd_det.ParaphraserTrainer', teacher=dict(config=teacher or retina(**TEACHER), checkpoint=checkpoint),
            distill=terms or fragment('ft_paraphraser'),
        )
    )  # fmt: skip
    model.init_weights()
    return model.train()


def runner(work_dir, model, steps, resume=False):
    raw = [raw_batch(sizes=[(64, 64)], boxes=[1], seed=i) for i in range(2)]
    data = [dict(inputs=d['inputs'][0], data_samples=d['data_samples'][0]) for d in raw] * 30  # no second epoch

    def collate(items):
        items = copy.deepcopy(items)
        return dict(inputs=[i['inputs'] for i in items], data_samples=[i['data_samples'] for i in items])

    return Runner(
        model=model, work_dir=str(work_dir), train_dataloader=DataLoader(data, batch_size=2, collate_fn=collate),
        train_cfg=dict(by_epoch=False, max_iters=steps, val_interval=1000), default_scope='mmdet',
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=3e-3)), randomness=dict(seed=0),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=steps, by_epoch=False)),
        custom_hooks=[dict(type='kd_det.TermScheduleHook')], resume=resume,
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}_{steps}',
    )  # fmt: skip


@pytest.fixture(scope='module')
def first(tmp_path_factory):
    """A first stage of 30 steps: the file of the teacher, of the paraphrasers, and the trained model."""
    root = tmp_path_factory.mktemp('ft')
    torch.save(dict(state_dict=build(retina(**TEACHER), 3).state_dict()), root / 'teacher.pth')
    run = runner(root / 'paraphrasers', trainer(checkpoint=str(root / 'teacher.pth')), 30)
    run.train()
    return root / 'teacher.pth', root / 'paraphrasers' / 'iter_30.pth', run.model


def second(first, **loss):
    terms = fragment('ft')
    terms['ft']['loss'].update(dict(paraphraser=str(first[1])), **loss)
    return terms


# --- each stage by itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('family', FAMILIES)
def test_fragment(family):
    """The transfer; with random paraphrasers it still is a fixed target."""
    run_method(fragment('ft'), family(), family(**TEACHER))


@pytest.mark.parametrize('form', ['paper', 'attention'])
def test_same_width(form):
    terms = fragment('ft')
    terms['ft']['loss']['form'] = form
    run_method(terms, retina(), retina())


@pytest.mark.parametrize('family', FAMILIES)
def test_paraphrasers_train_without_a_student(family):
    model = trainer(family(**TEACHER))
    images, samples = batch(model)
    model(images, samples, mode='loss')  # the first step makes the teacher fast
    frozen = {k: v.clone() for k, v in model.teacher.model.state_dict().items()}
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    values = []
    for _ in range(20):
        losses = model(images, samples, mode='loss')
        assert set(losses) == {'loss_ft'}
        optimiser.zero_grad()
        losses['loss_ft'].backward()
        optimiser.step()
        values.append(float(losses['loss_ft'].detach()))
    assert values[-1] < 0.95 * values[0]
    assert all(p.grad.any() for p in model.distill.parameters() if p.requires_grad)
    after = model.teacher.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())
    assert all(p.grad is None for p in model.teacher.model.parameters())
    assert not {k.split('.')[0] for k in model.state_dict()} - {'distill'}


def test_the_first_stages_loss_is_the_reconstruction_error():
    model = trainer()
    images, samples = batch(model)
    with torch.no_grad():
        maps = model.teacher.model.extract_feat(images)
        expected = sum(
            (loss.paraphraser(t) - t).abs().mean() for loss, t in zip(model.distill['ft'].losses, maps, strict=True)
        )
        torch.testing.assert_close(model(images, samples, mode='loss')['loss_ft'], expected)


def test_validation_of_the_first_stage_is_the_teachers(first):
    model = first[2].eval()
    images, samples = batch(model, training=False)
    with torch.no_grad():
        ours = model(images, copy.deepcopy(samples), mode='predict')
        theirs = model.teacher.model.predict(images, copy.deepcopy(samples))
    assert all(torch.equal(a.pred_instances.scores, b.pred_instances.scores) for a, b in zip(ours, theirs))
    model.train()


@pytest.mark.parametrize('teacher', [retina, faster])
def test_validation_of_a_teacher_that_was_made_fast(teacher):
    """Folded, in half precision; its heads run as before."""
    cfg = dict(config=teacher(), checkpoint=None, precision='bf16')
    terms = fragment('ft_paraphraser')
    model = MODELS.build(dict(type='kd_det.ParaphraserTrainer', teacher=cfg, distill=terms))
    model.init_weights()
    images, samples = batch(model, training=False)
    before = model(images, copy.deepcopy(samples), mode='predict')
    model(*batch(model), mode='loss')
    assert model.teacher.model.backbone.conv1.weight.dtype is torch.bfloat16
    after = model(images, copy.deepcopy(samples), mode='predict')
    for a, b in zip(before, after):
        torch.testing.assert_close(a.pred_instances.scores[:1], b.pred_instances.scores[:1], rtol=0.05, atol=0.05)


def test_several_taps_and_a_slice():
    terms = fragment('ft_paraphraser', ft=dict(teacher=['backbone.layer3', 'backbone.layer4']))
    model = trainer(terms=terms)
    assert [loss.teacher_channels for loss in model.distill['ft'].losses] == [64, 128]
    assert model(*batch(model), mode='loss')['loss_ft'] > 0


@pytest.mark.parametrize(
    'terms, message',
    [
        ({}, r'model.distill: found \{\}, expected such as'),
        (dict(a=dict(teacher='neck', loss=dict(type='kd_det.FTLoss'))), "distill.a.loss: .*stage='paraphraser'"),
        (dict(a=dict(teacher='neck', loss=dict(type='kd_det.CWDLoss'))), 'this model trains nothing else'),
        (dict(a=dict(loss=dict(type='kd_det.FTLoss', stage='paraphraser'))), "the key '.*' is missing"),
        (fragment('ft_paraphraser', ft=dict(teacher='nek')), "RetinaNet has no module 'nek'.*Nearest: 'neck'"),
    ],
)
def test_wrong_first_stages(terms, message):
    with pytest.raises(ConfigError, match=message):
        MODELS.build(
            dict(type='kd_det.ParaphraserTrainer', teacher=dict(config=retina(), checkpoint=None), distill=terms)
        )


# --- from one to the other --------------------------------------------------------------------------------------------


def test_the_checkpoint_holds_paraphrasers_alone(first):
    saved = torch.load(first[1], weights_only=True)['state_dict']
    names = {name for name in saved if '.paraphraser.' in name}
    assert names and {name.split('.')[0] for name in saved} == {'distill'}
    assert {int(name.split('.')[3]) for name in names} == {0, 1, 2}
    assert not any('teacher' in name for name in saved)


def test_there_is_no_student_in_it(first, tmp_path):
    saved = load_checkpoint_safely(first[1])
    assert checkpoint_kind(saved['state_dict']) == 'kd_det'
    with pytest.raises(CheckpointError, match='holds no weights of a student'):
        export_student(saved, tmp_path / 'student.pth', source='paraphrasers.pth')
    run = runner(tmp_path / 'w', trainer(), 1)
    run.train()
    StudentCheckpointHook().after_train(run)  # of distill_runtime.py: nothing to write, and no error
    assert not (tmp_path / 'w' / 'student_last.pth').exists()


def test_the_first_stage_goes_on_where_it_was(first, tmp_path):
    def model():
        return trainer(checkpoint=str(first[0]))

    whole = runner(tmp_path / 'whole', model(), 4)
    whole.train()
    runner(tmp_path / 'parts', model(), 2).train()
    resumed = runner(tmp_path / 'parts', model(), 4, resume=True)
    resumed.train()
    assert resumed.iter == 4
    ours = resumed.model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in whole.model.state_dict().items())


def test_the_second_stage_starts_from_the_first(first, tmp_path):
    model = distiller(retina(), retina(**TEACHER), second(first), checkpoint=str(first[0]))
    trained = first[2].distill['ft'].losses
    for ours, theirs in zip(model.distill['ft'].losses, trained, strict=True):
        for name, value in theirs.paraphraser.state_dict().items():
            assert torch.equal(ours.paraphraser.state_dict()[name], value), name
    before = copy.deepcopy(model.state_dict())
    run = runner(tmp_path / 'transfer', model, 3)
    run.train()
    after = run.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any('.paraphraser.' in name for name in moved)
    assert any('.translator.' in name for name in moved) and any(name.startswith('student.neck') for name in moved)

    # a run that goes on has its paraphrasers from its own checkpoint, and the translator with them
    saved = torch.load(tmp_path / 'transfer' / 'iter_3.pth', weights_only=True)['state_dict']
    again = distiller(retina(), retina(**TEACHER), fragment('ft'), seed=5, checkpoint=str(first[0]))
    again.load_state_dict(saved)
    loss = again.distill['ft'].losses[0]
    assert torch.equal(loss.paraphraser.encoder.conv0.weight, trained[0].paraphraser.encoder.conv0.weight)
    assert loss._has_weights


def test_twenty_steps_with_trained_paraphrasers(first):
    run_method(second(first), retina(), retina(**TEACHER), checkpoint=str(first[0]))


def test_the_transfer_compares_what_the_trained_encoders_see(first):
    model = distiller(retina(), retina(**TEACHER), second(first), checkpoint=str(first[0]))
    images, samples = batch(model)
    with torch.no_grad():
        ours, theirs = model.student.extract_feat(images), model.teacher.model.extract_feat(images)
    total = 0.0
    pairs = zip(model.distill['ft'].losses, first[2].distill['ft'].losses, strict=True)
    for (loss, trained), s, t in zip(pairs, ours, theirs):
        a, b = loss.translator(s).flatten(1), trained.paraphraser.encoder(t).flatten(1)
        total = total + (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).abs().mean()
    torch.testing.assert_close(model.loss(images, samples)['loss_ft'], 100 * total)


def test_an_untrained_paraphraser_is_told_once(caplog):
    model = distiller(retina(), retina(**TEACHER), fragment('ft'))
    model.loss(*batch(model))
    loss = model.distill['ft'].losses[0]
    loss._has_weights = False
    current = MMLogger.get_current_instance()
    current.addHandler(caplog.handler)
    try:
        model.loss(*batch(model))
        model.loss(*batch(model))
    finally:
        current.removeHandler(caplog.handler)
    told = [r for r in caplog.records if 'paraphraser has random weights' in r.getMessage()]
    assert len(told) == 1 and told[0].levelno == logging.WARNING


def test_what_the_second_stage_refuses(first, tmp_path):
    def build_with(path, teacher=None, **loss):
        distiller(retina(), teacher or retina(**TEACHER), second((None, path), **loss))

    with pytest.raises(CheckpointError, match=r"FTLoss.paraphraser: '.*gone.pth' does not exist"):
        build_with(tmp_path / 'gone.pth')
    with pytest.raises(CheckpointError, match=r'expected one paraphraser of level 0, found none \(levels in it: no\)'):
        build_with(first[0])
    with pytest.raises(CheckpointError, match=r'not fit level 0: .* is \(24, 24, 3, 3\), expected \(16, 16, 3, 3\)'):
        build_with(first[1], retina(channels=16))
    with pytest.raises(CheckpointError, match='does not fit level 0'):
        build_with(first[1], k=0.25)
    saved = torch.load(first[1], weights_only=True)
    torch.save({k: v for k, v in saved['state_dict'].items() if '.losses.2.' not in k}, tmp_path / 'two.pth')
    with pytest.raises(CheckpointError, match='has paraphrasers of 2 levels, and the taps of this term give 3'):
        build_with(tmp_path / 'two.pth')
    terms = second(first)
    terms['ft'].update(student='neck[1:3]', teacher='neck[1:3]')  # whose first level is the pyramid's second
    with pytest.raises(CheckpointError, match='has paraphrasers of 3 levels, and the taps of this term give 2'):
        distiller(retina(), retina(**TEACHER), terms)
    twice = {k.replace('distill.ft.', f'distill.{t}.'): v for k, v in saved['state_dict'].items() for t in ('a', 'b')}
    torch.save(twice, tmp_path / 'twice.pth')
    with pytest.raises(CheckpointError, match='found those of the terms a, b'):
        build_with(tmp_path / 'twice.pth')


def test_a_loss_that_nobody_initialised_reads_its_file(first):
    loss = FTLoss(16, 24, paraphraser=str(first[1]), level=1)
    loss(torch.zeros(1, 16, 4, 4), torch.zeros(1, 24, 4, 4))
    theirs = first[2].distill['ft'].losses[1].paraphraser
    assert torch.equal(loss.paraphraser.encoder.conv2.weight, theirs.encoder.conv2.weight)


# --- by the command line ----------------------------------------------------------------------------------------------


def test_the_file_is_looked_for_before_anything_is_built(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'ft_retina_r101_r50.py')
    cfg.model.distill.ft.loss.paraphraser = str(tmp_path / 'gone.pth')
    with pytest.raises(CheckpointError, match='model.distill.ft.loss.paraphraser: .*gone.pth'):
        check_teacher_file(cfg)
    stage = Config.fromfile(CONFIGS / 'first_stage' / 'ft_paraphraser_retina_r101.py')
    stage.model.teacher.checkpoint = str(tmp_path / 'gone.pth')
    with pytest.raises(CheckpointError, match='model.teacher.checkpoint: .*gone.pth'):
        check_teacher_file(stage)


def test_the_two_configs_belong_together():
    first, second = (
        Config.fromfile(CONFIGS / f'{name}.py')
        for name in ('first_stage/ft_paraphraser_retina_r101', 'ft_retina_r101_r50')
    )
    assert first.model.teacher == second.model.teacher
    ours, theirs = first.model.distill.ft, second.model.distill.ft
    assert ours.teacher == theirs.teacher and ours.loss.k == theirs.loss.k
    epochs = first.train_cfg.max_epochs
    assert theirs.loss.paraphraser == f'work_dirs/ft_paraphraser_retina_r101/epoch_{epochs}.pth'
    assert 'configs/first_stage/ft_paraphraser_retina_r101.py' in (CONFIGS / 'ft_retina_r101_r50.py').read_text()
    assert len((CONFIGS / 'first_stage' / 'ft_paraphraser_retina_r101.py').read_text().splitlines()) <= 30


@pytest.mark.slow
def test_both_configs_train_by_the_tool(tmp_path):
    """The two files as a user runs them, on two small images and with a random teacher."""
    root = write_tiny_coco(tmp_path / 'coco')
    data = [o for o in tiny_options(root, scale=64) if o.startswith(('train', 'default'))]

    def train(config, name, *options):
        args = [str(CONFIGS / config), '--work-dir', str(tmp_path / name), '--cfg-options', *data, *options]
        return run_train(prepare_train(parse_train(args)))

    small = ['model.teacher.checkpoint=None', 'randomness.seed=0']
    run = train('first_stage/ft_paraphraser_retina_r101.py', 'first', *small)
    assert run.iter == 2 and not (tmp_path / 'first' / 'student_last.pth').exists()
    no_val = ['val_cfg=None', 'val_dataloader=None', 'val_evaluator=None', 'model.student.backbone.init_cfg=None']
    file = f'model.distill.ft.loss.paraphraser={tmp_path}/first/epoch_1.pth'
    again = train('ft_retina_r101_r50.py', 'second', *small, *no_val, file)
    assert (tmp_path / 'second' / 'student_last.pth').is_file()
    for a, b in zip(run.model.distill['ft'].losses, again.model.distill['ft'].losses, strict=True):
        ours, theirs = a.paraphraser.state_dict(), b.paraphraser.state_dict()
        assert all(torch.equal(theirs[name], value) for name, value in ours.items())


def test_a_schedule_of_the_first_stage_needs_its_hook():
    terms = dict(ft=dict(teacher='neck', loss=dict(type='kd_det.FTLoss', stage='paraphraser'), schedule=dict(begin=1)))
    cfg = Config(dict(model=dict(type='kd_det.ParaphraserTrainer', distill=terms), custom_hooks=[]))
    with pytest.raises(ConfigError, match='no TermScheduleHook in it, which model.distill.ft.schedule'):
        _check_schedules(cfg)
