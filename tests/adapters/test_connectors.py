"""Connectors of mmrazor between the levels and the loss."""

import pytest
import torch
from tiny_models import batch, distiller, retina

from kd_det.compat import import_mmrazor
from kd_det.errors import ConfigError

import_mmrazor()
from mmrazor.models.architectures import connectors as mmrazor_connectors  # noqa: E402
from mmrazor.models.losses import FBKDLoss, L2Loss  # noqa: E402

FBKD = dict(
    student=dict(type='mmrazor.FBKDStudentConnector', reduction=2),
    teacher=dict(type='mmrazor.FBKDTeacherConnector', reduction=2),
)


def terms(loss, **adapter):
    return dict(x=dict(student='neck', teacher='neck', adapter=dict(type='kd_det.Connectors', **adapter), loss=loss))


def maps(model, images):
    with torch.no_grad():
        return model.student.extract_feat(images), model.teacher.model.extract_feat(images)


def test_a_loss_of_several_outputs():
    model = distiller(retina(), retina(), terms(dict(type='mmrazor.FBKDLoss', mask_l2_weight=0.5), **FBKD))
    images, samples = batch(model)
    adapter = model.distill['x'].adapter
    adapter.eval()  # the same running statistics twice
    total = 0.0
    for level, (s, t) in enumerate(zip(*maps(model, images), strict=True)):
        ours, theirs = (adapter.connectors[side][level] for side in ('student', 'teacher'))
        assert isinstance(ours, mmrazor_connectors.FBKDStudentConnector) and ours.in_channels == 16
        total = total + FBKDLoss(mask_l2_weight=0.5)(ours(s), theirs(t))
    torch.testing.assert_close(model.loss(images, samples)['loss_x'], total)
    assert [row.adapter for row in model.plan.rows] == ['FBKDStudentConnector, FBKDTeacherConnector'] * 3


def test_channels_are_found():
    wide = retina(channels=24)
    adapter = dict(student=dict(type='mmrazor.ConvModuleConnector', kernel_size=3, padding=1))
    model = distiller(retina(), wide, terms(dict(type='mmrazor.L2Loss'), **adapter))
    images, samples = batch(model)
    convs = model.distill['x'].adapter.connectors['student']
    pairs = zip(convs, *maps(model, images), strict=True)
    expected = sum(L2Loss()(conv(s), t) for conv, s, t in pairs)
    torch.testing.assert_close(model.loss(images, samples)['loss_x'], expected)
    model = distiller(retina(), wide, terms(dict(type='mmrazor.MGDLoss'), student=dict(type='mmrazor.MGDConnector')))
    connector = model.distill['x'].adapter.connectors['student'][0]
    assert connector.align.weight.shape == (24, 16, 1, 1)


def test_one_config_per_level():
    each = [dict(type='mmrazor.ConvModuleConnector', out_channel=24, kernel_size=k, padding=k // 2) for k in (1, 3, 5)]
    model = distiller(retina(), retina(channels=24), terms(dict(type='mmrazor.L1Loss'), student=each))
    convs = model.distill['x'].adapter.connectors['student']
    assert [conv.conv_module.conv.kernel_size[0] for conv in convs] == [1, 3, 5]
    assert model.loss(*batch(model))['loss_x'] > 0


def test_connectors_are_trained_and_the_teacher_is_not():
    model = distiller(retina(), retina(), terms(dict(type='mmrazor.FBKDLoss'), **FBKD))
    model.loss(*batch(model))['loss_x'].backward()
    connectors = dict(model.distill['x'].adapter.connectors.named_parameters())
    assert any(p.grad.any() for name, p in connectors.items() if name.startswith('teacher'))
    assert model.student.neck.fpn_convs[0].conv.weight.grad.any()
    assert all(p.grad is None for p in model.teacher.model.parameters())


@pytest.mark.parametrize(
    'adapter, message',
    [
        (dict(student='conv'), r"distill.x.adapter.student: found 'conv', expected such as dict"),
        (dict(teacher=dict(type='mmrazor.Gone')), "adapter.teacher.type: 'mmrazor.Gone' is not registered"),
        (dict(student=[FBKD['student']] * 2), 'found 2 configs for 3 levels'),
        (dict(student=dict(type='mmrazor.NormConnector')), "adapter.student: .*'norm_cfg'"),
    ],
)
def test_errors(adapter, message):
    with pytest.raises(ConfigError, match=message):
        distiller(retina(), retina(), terms(dict(type='mmrazor.L1Loss'), **adapter))
