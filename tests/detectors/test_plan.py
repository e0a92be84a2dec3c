"""The dry forward: what it finds, what it leaves untouched, what it refuses."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import backbone, batch, build, cascade, cwd, distiller, faster, fcos, fpn, gfl, retina, ssd

from kd_det.detectors.plan import untouched
from kd_det.errors import ConfigError
from kd_det.losses import CWDLoss
from kd_det.registry import MODELS

BN = dict(backbone=backbone(norm_eval=False))


def test_it_leaves_no_trace():
    """Build with and without a plan: weights, buffers, modes and all three random states agree."""

    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()

    torch.manual_seed(3)
    student, teacher = (MODELS.build(dict(_scope_='mmdet', **cfg)) for cfg in map(_as_config, (retina(**BN),) * 2))
    plain = states()
    torch.manual_seed(3)
    model = distiller(retina(**BN), retina(**BN), dict(a=cwd(), b=cwd('bbox_head[0]')), init=False, seed=None)
    assert all(torch.equal(*map(torch.as_tensor, pair)) for pair in zip(plain[1:], states()[1:]))
    assert states()[0] == plain[0]
    for ours, theirs in ((model.student, student), (model.teacher.model, teacher)):
        assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
        for (name, ours_), theirs_ in zip(ours.state_dict().items(), theirs.state_dict().values()):
            assert torch.equal(ours_, theirs_), name
    assert all(m.training == n.training for m, n in zip(model.student.modules(), student.modules()))
    assert not any(p.grad is not None for p in model.parameters())


def _as_config(cfg):
    from mmengine.config import ConfigDict

    return ConfigDict(cfg)


def test_untouched_restores_modes_buffers_and_random_states():
    class Restless(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.drop = torch.nn.BatchNorm2d(2), torch.nn.Dropout()
            self.register_buffer('count', torch.zeros(()))

        def forward(self, x):
            self.count += 1
            random.random(), np.random.rand()
            self.norm.train()
            return self.drop(self.norm(x + torch.rand(1)))

    net = Restless()
    net.drop.eval()
    modes = [m.training for m in net.modules()]
    before = [random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()]
    with untouched(net):
        assert not net.training
        net(torch.randn(2, 2, 3, 3))
    assert [m.training for m in net.modules()] == modes
    assert net.count == 0 and net.norm.running_mean.abs().sum() == 0 and net.norm.num_batches_tracked == 0
    assert random.getstate() == before[0] and (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), before[2])


def test_it_restores_even_when_the_probe_fails():
    net = torch.nn.BatchNorm1d(2)
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), untouched(net):
        torch.randn(3)
        raise ZeroDivisionError
    assert net.training and torch.equal(torch.get_rng_state(), state)


def test_the_table_tells_channels_strides_and_what_is_added():
    model = distiller(retina(), retina(channels=24), dict(a=cwd(weight=10.0), b=cwd('backbone[0:2]')))
    rows = model.plan.rows
    assert [(r.term, r.level) for r in rows] == [('a', '0'), ('a', '1'), ('a', '2'), ('b', '0'), ('b', '1')]
    assert [r.student for r in rows[:2]] == ['neck 16x16x24 /8', 'neck 16x8x12 /16']
    assert rows[0].teacher == 'neck 24x16x24 /8'
    assert [r.adapter for r in rows] == ['1x1 16→24'] * 3 + ['-'] * 2
    assert rows[0].loss == '10 x CWDLoss'
    added = sum(p.numel() for p in model.distill.parameters())
    assert sum(r.parameters for r in rows) == added == 3 * (16 * 24 + 24)
    table = model.plan.table()
    assert '128x192' in table.splitlines()[0]
    assert len({line.index('neck 24') for line in table.splitlines() if 'neck 24' in line}) == 1  # columns line up


def test_convolutions_only_where_channels_differ():
    model = distiller(retina(), retina(), dict(a=cwd()))
    assert not list(model.distill.parameters())
    model = distiller(retina(), retina(base=16), dict(a=cwd('backbone'), b=cwd('neck')))
    assert {n.split('.')[0] for n, _ in model.distill.named_parameters()} == {'a'}
    shapes = [tuple(p.shape) for n, p in model.distill.named_parameters() if n.endswith('weight')]
    assert shapes == [(16 * 2**i, 8 * 2**i, 1, 1) for i in range(4)]


@pytest.mark.parametrize('resize', ['student', 'teacher'])
def test_other_strides_are_resized_by_the_stated_rule(resize):
    """A teacher whose levels begin at stride 4, level by level against a student from stride 8."""
    teacher = retina(neck=dict(fpn(start=0, outs=3), in_channels=[8, 16, 32]), backbone=backbone(out_indices=(0, 1, 2)))
    teacher['bbox_head']['anchor_generator'] = dict(teacher['bbox_head']['anchor_generator'], strides=[4, 8, 16])
    model = distiller(retina(), teacher, dict(a=cwd(adapter=dict(type='kd_det.Align', resize=resize))))
    assert [r.adapter for r in model.plan.rows] == [f'resize {resize}'] * 3
    assert '/8' in model.plan.rows[0].student and '/4' in model.plan.rows[0].teacher
    inputs, samples = batch(model)
    loss = model.loss(inputs, samples)['loss_a']
    with torch.no_grad():
        ours, theirs = model.student.extract_feat(inputs), model.teacher.model.extract_feat(inputs)
    by_hand = 0
    for s, t in zip(ours, theirs):
        if resize == 'student':
            s = F.interpolate(s, t.shape[2:], mode='bilinear', align_corners=False)
        else:
            t = F.interpolate(t, s.shape[2:], mode='bilinear', align_corners=False)
        by_hand = by_hand + CWDLoss()(s, t)
    torch.testing.assert_close(loss.detach(), by_hand)


def test_towers_of_heads_are_aligned_and_predictions_are_not():
    wide = retina(channels=24)
    model = distiller(retina(), wide, dict(a=cwd('bbox_head.cls_convs.0.conv'), b=cwd('bbox_head.retina_reg')))
    assert [r.adapter for r in model.plan.rows] == ['1x1 16→24'] * 3 + ['-'] * 3
    model = distiller(faster(), faster(channels=24), dict(a=cwd('rpn_head.rpn_conv'), b=cwd('rpn_head.rpn_cls')))
    assert [r.adapter for r in model.plan.rows] == ['1x1 16→24'] * 3 + ['-'] * 3


def test_losses_get_their_channels_from_the_plan():
    term = dict(student='neck', teacher='neck', loss=dict(type='kd_det.FGDLoss'))
    model = distiller(retina(), retina(channels=24), dict(a=term))
    (loss, *others) = model.terms[0].losses
    assert len(others) == 2 and not list(model.terms[0].adapter.parameters())
    assert tuple(loss.align.weight.shape) == (24, 16, 1, 1)


# ------------------------------------------------------------------------------------------------------ what it refuses

LOGITS = dict(a=cwd('bbox_head[0]'))
CLASSES = 'distill.a: .*the same number of classes'


def loss(**cfg):
    return dict(a=dict(cwd(), loss=cfg))


def adapter(**cfg):
    return dict(a=cwd(adapter=cfg))


@pytest.mark.parametrize(
    'student, teacher, terms, says',
    [
        (retina, retina, dict(a=cwd('nekc')),
         r"distill.a.student: 'nekc': RetinaNet has no module 'nekc'.*Nearest: 'neck'"),
        (retina, retina, dict(a=cwd('neck', 'neck.fpn_conv.0')), r"distill.a.teacher: .*'neck.fpn_convs.0'"),
        (retina, retina, dict(a=cwd('neck[7]')),
         r"distill.a.student: 'neck\[7\]': index \[7\] on a reading of 3 items"),
        (retina, retina, dict(a=cwd('bbox_head')), 'distill.a.student: the reading is 2 items.*pick with an index'),
        (retina, retina, dict(a=cwd('neck', 'neck[:2]')), r'distill.a: the student tap gives 3 levels .*teacher tap 2'),
        (retina, lambda: retina(classes=5), LOGITS, r'distill.a: .*\(1, 6, .*\(1, 10, .*the same number of classes'),
        (retina, lambda: retina(classes=5), dict(a=cwd('bbox_head.retina_cls')), CLASSES),
        (faster, lambda: faster(classes=5), dict(a=cwd('roi_head.bbox_head.fc_cls')), 'same number of classes'),
        (fcos, lambda: fcos(classes=5), dict(a=cwd('bbox_head.conv_cls')), CLASSES),
        (retina, retina, loss(type='kd_det.CWDLos'), r"loss.type: 'kd_det.CWDLos' .*'kd_det.CWDLoss'"),
        (retina, retina, loss(type='CWDLos'), r"loss.type: 'CWDLos' .*'kd_det.CWDLoss'"),
        (retina, retina, loss(type='mmrazor.PKDLos'), "'mmrazor.PKDLos' .*'mmrazor.PKDLoss'"),
        (retina, retina, loss(type='kd_det.CWDLoss', tua=2),
         r"distill.a.loss: CWDLoss has no option 'tua' .found tua=2.; expected .*Nearest: 'tau'"),
        (retina, retina, dict(a=dict(cwd(), loss='kd_det.CWDLoss')),
         "distill.a.loss: found 'kd_det.CWDLoss', expected a dict"),
        (retina, retina, dict(a=cwd(wieght=2)), "distill.a: unknown key 'wieght'.*Nearest: 'weight'"),
        (retina, retina, dict(a=cwd(weight='2')), "distill.a.weight: found '2', expected a finite number"),
        (retina, retina, dict(a=dict(student='neck', loss=dict(type='kd_det.CWDLoss'))),
         "the key 'teacher' is missing"),
        (retina, retina, adapter(type='kd_det.Aling'), "adapter.type: 'kd_det.Aling' .*'kd_det.Align'"),
        (retina, retina, adapter(type='kd_det.CWDLoss'), "adapter: 'kd_det.CWDLoss' is no adapter"),
        (retina, retina, adapter(type='kd_det.Align', size=1), "Align has no option 'size'"),
        (retina, retina, adapter(type='kd_det.Align', resize='x'), "resize: found 'x'"),
        (retina, retina, dict(a=cwd(inputs=dict(labels='bbox_hed[0]'))),
         r"distill.a.* 'bbox_hed\[0\]'.*Nearest: 'bbox_head'"),
        (retina, retina, loss(type='kd_det.MGDLoss', lambda_mgd=3), 'lambda_mgd=3, expected a share'),
        (retina, retina, dict(a='neck'), 'distill.a: found str, expected dict'),
        (retina, retina, dict(a=cwd(schedule=dict(bgin=1))), "distill.a.schedule: unknown option 'bgin'"),
        (retina, retina, dict(a=dict(cwd('bbox_head[1]'), loss=dict(type='kd_det.TeacherBoundedL2Loss'))),
         "TeacherBoundedL2Loss asks for 'bbox_targets'.*inputs=dict.bbox_targets="),
        (fcos, fcos, dict(a=cwd('bbox_head.get_target()')), "has no method 'get_target'.*'get_targets'"),
        (retina, retina, {}, 'model.distill: found {}, expected at least one term'),
        (retina, retina, None, 'model.distill: found None'),
    ],
)  # fmt: skip
def test_wrong_configs_stop_the_run_before_it_begins(student, teacher, terms, says):
    with pytest.raises(ConfigError, match=says) as error:
        distiller(student(), teacher(), terms, init=False)
    assert 'errors in the config' not in str(error.value)


def test_several_errors_are_shown_together():
    with pytest.raises(ConfigError) as error:
        distiller(
            retina(),
            retina(),
            dict(a=cwd('nekc'), b=cwd('neck'), c=cwd('neck', 'bakbone')),
            inherit=['bbox'],
            init=False,
        )
    text = str(error.value)
    assert text.startswith('4 errors in the config:') or text.startswith('3 errors in the config:')
    for says in ("distill.a.student: 'nekc'", "distill.c.teacher: 'bakbone'", "model.inherit, student: 'bbox'"):
        assert f'\n- {says}' in text
    with pytest.raises(ConfigError) as error:  # those that only the dry forward finds
        distiller(retina(), retina(), dict(a=cwd('neck[9]'), b=cwd('neck'), c=cwd('neck', 'neck[:1]')), init=False)
    assert '2 errors' in str(error.value) and 'distill.a' in str(error.value) and 'distill.c' in str(error.value)


@pytest.mark.parametrize(
    'options, says',
    [
        (dict(teacher=None), r'model.teacher: missing; expected dict\(config='),
        (dict(student=None), 'model.student: found None, expected the config'),
        (dict(inherit='neck'), r"model.inherit: found 'neck', expected a list"),
        (dict(inherit=['nekc']), "model.inherit, student: 'nekc'.*Nearest: 'neck'"),
    ],
)
def test_a_config_without_its_parts_is_refused(options, says):
    cfg = dict(
        type='kd_det.DistillDetector',
        student=retina(),
        teacher=dict(config=retina(), checkpoint=None),
        distill=dict(a=cwd()),
    )
    with pytest.raises(ConfigError, match=says):
        MODELS.build({**cfg, **options})


@pytest.mark.parametrize('family', [retina, fcos, gfl, ssd, faster, cascade])
def test_every_family_can_be_probed_as_it_is(family):
    model = distiller(family(), family(channels=24), dict(a=cwd()), init=False)
    assert len(model.plan.rows) == 3 and model.plan.rows[0].adapter == '1x1 16→24'
    assert build(family(), 1) is not None


def test_heads_that_compute_other_numbers_in_training_are_refused():
    head = dict(fcos()['bbox_head'], norm_on_bbox=True)  # multiplies by the stride in evaluation only
    term = cwd(student='bbox_head[1]', teacher='bbox_head[1]')
    with pytest.raises(ConfigError, match=r"distill.a.student: 'bbox_head\[1\]': FCOSHead gives other numbers"):
        distiller(fcos(bbox_head=head), fcos(bbox_head=head), dict(a=term), init=False)
    scores = cwd(student='bbox_head[0]', teacher='bbox_head[0]')
    model = distiller(fcos(bbox_head=head), fcos(bbox_head=head), dict(a=scores), init=False)
    assert not any(module.training for module in model.teacher.model.modules())
    assert all(module.training for module in model.student.bbox_head.modules())
    distiller(fcos(), fcos(), dict(a=term), init=False)


def test_a_model_that_cannot_run_blames_the_config():
    broken = retina(neck=dict(retina()['neck'], in_channels=[8, 16, 33, 64]))
    with pytest.raises(ConfigError, match=r'(?s)dry forward .* failed with .* Check model.student'):
        distiller(broken, retina(), dict(a=cwd()), init=False)


def test_what_a_constructor_refuses_names_the_term():
    with pytest.raises(ConfigError, match=r'distill\.a\.loss: .*mask_type'):
        distiller(retina(), retina(), dict(a=cwd(loss=dict(type='kd_det.MGDLoss', mask_type='rows'))), init=False)
    with pytest.raises(ConfigError, match=r'distill\.a\.adapter: .*resize'):
        distiller(retina(), retina(), dict(a=cwd(adapter=dict(type='kd_det.Align', resize='both'))), init=False)


def test_it_asks_no_other_process(tmp_path, monkeypatch):
    """NCCL can average nothing over processes while the networks are on the CPU; afterwards all is as usual."""

    def refuse(*args, **kwargs):
        raise RuntimeError('No backend type associated with device type cpu')

    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/meeting', rank=0, world_size=1)
    try:
        monkeypatch.setattr(torch.distributed, 'all_reduce', refuse)
        rows = dict(student='bbox_head[0]', teacher='bbox_head[0]', adapter=dict(type='kd_det.DenseRows'),
                    loss=dict(type='kd_det.KDLoss', use_sigmoid=True))  # fmt: skip
        model = distiller(gfl(), gfl(), dict(kd=rows), init=False)
        assert torch.distributed.is_initialized()
        model.init_weights()
        with pytest.raises(RuntimeError, match='No backend'):
            model.loss(*batch(model))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    'loss, tap, adapter, says',
    [
        ('RKDLoss', 'neck', 'Instances', 'takes one row per image'),
        ('KDLoss', 'bbox_head[0]', 'DenseRows', 'takes every anchor of the map'),
    ],
)
def test_rows_that_are_hardly_meant_are_pointed_out(loss, tap, adapter, says):
    """The plan says so under its table; with the adapter it is silent."""
    term = dict(student=tap, teacher=tap, loss=dict(type=f'kd_det.{loss}'))
    (note,) = distiller(retina(), retina(), dict(a=term)).plan.notes
    assert f'distill.a: {loss} compares rows' in note and says in note and f"'kd_det.{adapter}'" in note
    meant = dict(term, adapter=dict(type=f'kd_det.{adapter}'))
    if adapter == 'Instances':
        meant.update(student='neck', teacher='neck')
    assert distiller(retina(), retina(), dict(a=meant)).plan.notes == []


def test_what_a_loss_refuses_names_the_term():
    """A wrong shape ends in one line, not in a traceback."""
    term = dict(student='neck[0:1]', teacher='neck[0:1]', loss=dict(type='kd_det.FSPLoss'))
    model = distiller(retina(), retina(), dict(a=term))
    with pytest.raises(ConfigError, match=r'distill\.a\.loss: FSPLoss: .*2 or more'):
        model.loss(*batch(model))
