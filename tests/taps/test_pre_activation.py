"""``module@pre``: what goes into the last activation that runs inside a module."""

import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from tiny_models import batch, build, cwd, distiller, gfl, retina
from torch import nn

from kd_det.errors import ConfigError
from kd_det.taps import Tap, TapSet


def read(network, text, *args):
    tap = Tap.parse(text)
    taps = TapSet(network, [tap])
    with taps:
        network(*args)
    return taps.read(tap)


def test_of_a_resnet_stage_it_is_the_residual_sum_of_the_last_block():
    backbone = build(retina(), seed=0).eval().backbone
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # the last of a block starts at zero
    images = torch.randn(2, 3, 64, 96)
    plain = copy.deepcopy(backbone)(images)  # its stages' outputs, from activations that work in place
    for stage in (1, 2, 3, 4):
        pre = read(backbone, f'layer{stage}@pre', images)
        after = read(backbone, f'layer{stage}', images)
        assert bool((pre < 0).any())
        assert torch.equal(pre.relu(), after) and torch.equal(after, plain[stage - 1])

    block = backbone.layer4[-1]  # by hand: the two convolutions, and the identity that skips them
    x = read(backbone, 'layer4.1@in', images)[0]
    inside = block.norm2(block.conv2(block.norm1(block.conv1(x)).relu()))
    assert torch.allclose(read(backbone, 'layer4@pre', images), inside + x, atol=1e-6)


def test_of_a_tower_it_is_one_reading_per_level():
    model = build(gfl(), seed=0).eval()
    maps = [torch.randn(1, 16, n, n) for n in (8, 4, 2)]
    conv = model.bbox_head.cls_convs[0]
    found = read(model.bbox_head, 'cls_convs.0@pre', maps)
    assert len(found) == 3
    for level, pre in zip(maps, found):
        assert torch.allclose(pre, conv(level, activate=False), atol=1e-6)


def test_it_carries_the_gradient():
    conv = ConvModule(3, 4, 3, norm_cfg=dict(type='BN'))
    read(nn.Sequential(conv), '0@pre', torch.randn(2, 3, 8, 8)).sum().backward()
    assert bool(conv.conv.weight.grad is not None)


def test_runs_without_activation_give_nothing():
    """A run that leaves the activation out is no reading, and no reading of the run before is repeated."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = ConvModule(3, 3, 1)

        def forward(self, x):
            return self.conv(self.conv(x), activate=False)

    network, tap = Twice(), Tap.parse('conv@pre')
    taps = TapSet(network, [tap])
    with taps:
        network(torch.randn(1, 3, 4, 4))
    assert taps.counts() == {tap.source: 1}


def test_an_activation_made_of_activations_is_one():
    network = ConvModule(3, 8, 1, act_cfg=None)
    network.activate, network.with_activation = DyReLU(), True
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(read(nn.Sequential(network), '0@pre', x), network.conv(x))


class DyReLU(nn.Module):
    """As mmdet's, an activation that computes its own slope with activations inside."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Sigmoid())

    def forward(self, x):
        return x * self.inner(x)


def test_a_module_without_activation_is_refused():
    with pytest.raises(ConfigError, match="'conv@pre': Conv2d holds no activation module"):
        TapSet(nn.ModuleDict(dict(conv=nn.Conv2d(3, 3, 1))), [Tap.parse('conv@pre')])


def test_in_a_term():
    term = cwd('backbone.layer3@pre')
    model = distiller(retina(), retina(), dict(a=term, b=cwd(['backbone.layer2@pre', 'backbone.layer4@pre'])))
    images, samples = batch(model)
    losses = model.loss(images, samples)
    assert torch.isfinite(losses['loss_a']) and losses['loss_a'] > 0 and losses['loss_b'] > 0
    expected = float(losses['loss_a'].detach())
    (losses['loss_a'] + losses['loss_b']).backward()
    assert bool(model.student.backbone.layer4[0].downsample[0].weight.grad.abs().sum() > 0)
    assert [row.student.split()[0] for row in model.plan.rows] == [
        'backbone.layer3@pre', 'backbone.layer2@pre', 'backbone.layer4@pre',
    ]  # fmt: skip
    assert float(copy.deepcopy(model).loss(images, samples)['loss_a'].detach()) == pytest.approx(expected, rel=1e-5)
