"""Every loss equals its plain formula, in value and in every gradient."""

import pytest
import torch
from reference_formulas import CASES

from kd_det import losses
from kd_det.losses import _functional, _fused

SMALL = dict(size=(8, 12), channels=6, batch=2, boxes=4, instances=12, classes=7, dtype=torch.float64)

#: A bias in front of a soft-max or a batch norm: its gradient is 0, and rounding in a formula.
ROUNDING = {
    'conv_mask_s.bias',
    'conv_mask_t.bias',
    'align.conv.bias',
    'connectors.0.conv.bias',
    'connectors.1.conv.bias',
}

#: Losses that compare channel with channel, without a layer of their own between.
EQUAL_WIDTHS = {'cwd', 'cwd_padded', 'pkd', 'fsp'}

#: Losses that read all their maps at once.
AT_ONCE = {'nst', 'fsp', 'ickd', 'reviewkd', 'ft', 'ft_attention'}


def compare(pair, tol=1e-9):
    ours, plain = pair
    assert all(torch.equal(one, other) for one, other in zip(ours.leaves, plain.leaves))
    found, expected = ours(), plain()
    assert torch.isfinite(expected) and expected != 0
    torch.testing.assert_close(found, expected, rtol=tol, atol=0)
    names = [*(f'student {i}' for i in range(len(ours.leaves))), *ours.parameters]
    gradients = [
        torch.autograd.grad(value, [*call.leaves, *call.parameters.values()], allow_unused=True)
        for value, call in ((found, ours), (expected, plain))
    ]
    largest = max(g.abs().max() for g in gradients[1] if g is not None)
    for name, one, other in zip(names, *gradients):
        other = torch.zeros_like(one) if other is None else other
        if name in ROUNDING:
            assert one.abs().max() <= 1e-12 * largest and other.abs().max() <= 1e-12 * largest
            continue
        scale = other.abs().max()
        assert scale > 0, f'{name} learns nothing here'
        error = (one - other).abs().max()
        assert error <= tol * scale, f'{name}: off by {error:.3g} at a scale of {scale:.3g}'


@pytest.mark.parametrize('name', CASES)
def test_loss_equals_formula(name):
    compare(CASES[name].make(**SMALL))


@pytest.mark.parametrize('name', [name for name in CASES if name not in EQUAL_WIDTHS])
def test_loss_equals_formula_where_widths_differ(name):
    compare(CASES[name].make(**dict(SMALL, student_channels=4)))


@pytest.mark.parametrize('name', [name for name, case in CASES.items() if case.maps])
def test_loss_equals_formula_on_few_positions(name):
    """Fewer positions than channels, an odd size."""
    compare(CASES[name].make(**dict(SMALL, size=(5, 4), channels=24)))


@pytest.mark.parametrize('name', [name for name, case in CASES.items() if case.maps])
def test_loss_equals_formula_in_blocks_of_channels(monkeypatch, name):
    """Blocks of three of eight channels, forward and backward."""
    widths = set()

    def three(maps):
        widths.add(maps.shape[1])
        return 3

    for module in (_fused, _functional):
        monkeypatch.setattr(module, 'channel_step', three)
    compare(CASES[name].make(**dict(SMALL, channels=8)))
    assert widths == (set() if name in AT_ONCE else {8})


def test_inputs_follow_the_generator():
    first, second, third = (
        CASES['fgd'].make(**SMALL, generator=torch.Generator().manual_seed(seed)).ours() for seed in (1, 1, 2)
    )
    assert first == second != third


def test_every_loss_has_a_formula():
    assert {case.type for case in CASES.values()} == {f'kd_det.{name}' for name in losses.__all__}
