"""The teacher's batch norms before the taps, and what OFD makes of them."""

import copy
import re

import pytest
import torch
from tiny_models import AS_LOADED, backbone, batch, distiller, fcos, fpn, retina

from kd_det.losses.ofd import OFDLoss, margin_from_bn, measured_margin

STAGES = ['backbone.layer2@pre', 'backbone.layer3@pre', 'backbone.layer4@pre']


def terms(taps=STAGES, teacher=None, **loss):
    return dict(
        ofd=dict(
            student=taps, teacher=teacher or taps, adapter=dict(type='kd_det.TeacherNorms'),
            loss=dict(type='kd_det.OFDLoss', loss_divisor=10.0, **loss),
        )
    )  # fmt: skip


def randomise(network):
    """Norms with weights of their own, of both signs."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.normal_(generator=generator)
            module.bias.data.normal_(generator=generator)


def spied(model, monkeypatch):
    """What the loss is given in a step."""
    seen = []
    forward = OFDLoss.forward

    def spy(self, *args, **kwargs):
        seen.append((args, kwargs))
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(OFDLoss, 'forward', spy)
    value = model.loss(*batch(model))['loss_ofd']
    (given,) = seen
    return value, given


def plain(model, ours, theirs, margins):
    """The loss from its formula, with the model's own connectors."""
    total = 0.0
    for i, (connector, s, t, margin) in enumerate(zip(model.distill['ofd'].losses[0].connector, ours, theirs, margins)):
        s, t = connector(s), torch.maximum(t, margin.view(1, -1, 1, 1))
        free = (s <= t) & (t <= 0)
        total = total + torch.where(free, 0.0, (s - t) ** 2).sum() * 2.0 ** (i + 1 - len(ours)) / len(s) / 10
    return total


@pytest.mark.parametrize('depth', [18, 50])
def test_the_norms_of_a_resnet(monkeypatch, depth):
    """The last norm of the last block: bn2 of a basic block, bn3 of a bottleneck, and no downsample's."""
    widths = [8 * 2**i * (4 if depth == 50 else 1) for i in range(4)]
    neck = dict(fpn(8), in_channels=widths)
    model = distiller(retina(), retina(backbone=backbone(8, depth=depth), neck=neck), terms(), engine=AS_LOADED)
    net = model.teacher.model
    randomise(net)
    value, ((ours, theirs), given) = spied(model, monkeypatch)
    last = 'bn3' if depth == 50 else 'bn2'
    norms = [getattr(getattr(net.backbone, f'layer{i}')[-1], last) for i in (2, 3, 4)]
    assert [t.shape[1] for t in theirs] == widths[1:]
    for i, norm in enumerate(norms):
        assert torch.equal(given['bn_weight'][i], norm.weight) and torch.equal(given['bn_bias'][i], norm.bias)
    assert all('margin from' in row.adapter for row in model.plan.rows)

    margins = [margin_from_bn(norm.weight, norm.bias) for norm in norms]
    torch.testing.assert_close(value, plain(model, ours, theirs, margins))


def test_a_stage_of_one_block_has_the_norm_of_its_branch_not_of_its_shortcut(monkeypatch):
    taps = ['backbone.layer2.0@pre']
    model = distiller(retina(), retina(), terms(taps), engine=AS_LOADED)
    randomise(model.teacher.model)
    block = model.teacher.model.backbone.layer2[0]
    assert block.downsample is not None
    _, (_, given) = spied(model, monkeypatch)
    assert torch.equal(given['bn_weight'][0], block.bn2.weight)


def test_a_module_with_its_norm_inside(monkeypatch):
    """A head's tower runs once per level: the same norm for each."""
    tap = 'bbox_head.cls_convs.0@pre'
    cfg = fcos()
    cfg['bbox_head']['norm_cfg'] = dict(type='BN')
    model = distiller(fcos(), cfg, terms(tap), engine=AS_LOADED)
    randomise(model.teacher.model)
    _, ((_, theirs), given) = spied(model, monkeypatch)
    norm = model.teacher.model.bbox_head.cls_convs[0].norm
    assert len(theirs) == 3
    assert all(torch.equal(weight, norm.weight) for weight in given['bn_weight']) and len(given['bn_weight']) == 3


@pytest.mark.parametrize('norm', [dict(type='GN', num_groups=4), None])
def test_without_a_batch_norm_the_margin_is_measured(monkeypatch, norm):
    tap = 'bbox_head.cls_convs.0@pre'
    cfg = fcos()
    cfg['bbox_head']['norm_cfg'] = norm
    model = distiller(fcos(), cfg, terms(tap))
    assert 'margin measured' in model.plan.rows[0].adapter
    value, ((ours, theirs), given) = spied(model, monkeypatch)
    assert not given
    torch.testing.assert_close(value, plain(model, ours, theirs, [measured_margin(t) for t in theirs]))


def test_a_level_without_norm_among_others_is_measured(monkeypatch):
    """The neck has no norm and no activation; its map is tapped as it is."""
    taps = ['backbone.layer2@pre', 'neck[1]']
    model = distiller(retina(), retina(), terms(taps), engine=AS_LOADED)
    randomise(model.teacher.model)
    value, ((ours, theirs), given) = spied(model, monkeypatch)
    assert given['bn_weight'][0] is not None and given['bn_weight'][1] is None and given['bn_bias'][1] is None
    norm = model.teacher.model.backbone.layer2[-1].bn2
    margins = [margin_from_bn(norm.weight, norm.bias), measured_margin(theirs[1])]
    torch.testing.assert_close(value, plain(model, ours, theirs, margins))


def test_a_folded_norm_still_gives_its_margin(monkeypatch):
    """Folded into its convolution, the norm is gone from the teacher, and known to the adapter as before."""
    values, given = [], []
    for engine in (AS_LOADED, None):
        model = distiller(retina(), retina(), terms(), engine=engine)
        randomise(model.teacher.model)
        with monkeypatch.context() as patch:
            value, (_, extras) = spied(model, patch)
        values.append(value)
        given.append(extras['bn_weight'])
    assert isinstance(model.teacher.model.backbone.layer2[-1].bn2, torch.nn.Identity)
    assert all(map(torch.equal, *given))
    torch.testing.assert_close(*values, rtol=1e-5, atol=0)


def test_norms_are_the_teachers_and_no_part_of_the_model():
    model = distiller(retina(), retina(), terms())
    adapter = model.distill['ofd'].adapter
    norm = model.teacher.model.backbone.layer2[-1].bn2
    assert adapter._norms[0].module is norm and not dict(adapter.named_parameters())
    assert {key.split('.')[0] for key in model.state_dict()} == {'student', 'distill'}
    assert not any(len(m._forward_hooks) for m in model.teacher.model.backbone.layer2[-1].modules())
    assert copy.deepcopy(model).distill['ofd'].adapter._norms[0].module is norm
    norm.weight.data.fill_(3.0)  # read at each step, as an average of the student moves
    assert adapter(*[[torch.zeros(1, c, 4, 4) for c in (16, 32, 64)]] * 2, {})[0].extras['bn_weight'][0] == 3


def test_running_margins():
    torch.manual_seed(0)
    loss = OFDLoss([2], [3], margin_momentum=0.25)
    maps = [torch.randn(2, 3, 4, 5) - 0.3 for _ in range(3)]
    expected = None
    for t in maps:
        loss([torch.randn(2, 2, 4, 5)], [t])
        fresh = torch.stack([x[x < 0].mean() for x in t.transpose(0, 1)])
        expected = fresh if expected is None else 0.75 * expected + 0.25 * fresh
    torch.testing.assert_close(loss.margin_0, expected, rtol=1e-5, atol=1e-6)
    other = OFDLoss([2], [3], margin_momentum=0.25).eval()
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(other.measured(0, maps[0] * 9), loss.margin_0)
    torch.testing.assert_close(other.margin_0, loss.margin_0)  # evaluation moves nothing
    given = torch.ones(3), torch.zeros(3)
    before = loss.margin_0.clone()
    loss([torch.randn(2, 2, 4, 5)], [maps[0]], [given[0]], [given[1]])
    assert torch.equal(loss.margin_0, before)  # a given margin is not measured
    with pytest.raises(ValueError, match='margin_momentum=1.5'):
        OFDLoss([2], [3], margin_momentum=1.5)


def test_a_stage_without_activation_is_refused():
    with pytest.raises(ValueError, match=re.escape("'neck@pre': FPN holds no activation module")):
        distiller(retina(), retina(), terms('neck@pre'))
