"""Learnt temperatures and standardised logits in every loss that has a temperature."""

import inspect

import pytest
import torch

from kd_det import losses
from kd_det.losses.temperature import CurriculumTemperature, standardise

LEARNT = dict(type='kd_det.CurriculumTemperature', t_start=0.5, t_end=4.0)
#: Loss → its temperatures.
TEMPERATURES = dict(
    KDLoss=['T'],
    DISTLoss=['tau'],
    DKDLoss=['temperature'],
    OFALoss=['temperature'],
    SDDLoss=['temperature'],
    SoftTargetLoss=['T'],
    MultiBoxKDLoss=['Temp'],
    CWDLoss=['tau'],
    LDLoss=['ld_T', 'vlr_T', 'kd_T'],
)


def z_scores(x, dim=-1):
    """Plain: one list of numbers at a time."""
    rows = x.movedim(dim, -1)
    flat = rows.reshape(-1, rows.shape[-1])
    out = torch.stack([(row - row.sum() / len(row)) / (1e-7 + row.var().sqrt()) for row in flat])
    return out.reshape(rows.shape).movedim(-1, dim)


def case(name):
    """Student, teacher, what else the loss asks for, options, and the z-scores of its logits."""
    torch.manual_seed(0)
    rows = [torch.randn(6, 5, dtype=torch.float64) * 3 for _ in range(2)]
    labels = dict(labels=torch.tensor([0, 3, 4, 1, 2, 0]))
    if name == 'SDDLoss':
        regions = [torch.randn(6, 5, 21, dtype=torch.float64) for _ in range(2)]
        return *regions, labels, {}, lambda x: z_scores(x, 1)
    if name == 'MultiBoxKDLoss':
        heads = [dict(loc=torch.randn(2, 8, 4), conf=torch.randn(2, 8, 5)) for _ in range(2)]
        heads = [{k: v.double() for k, v in head.items()} for head in heads]
        asked = dict(loc_t=torch.randn(2, 8, 4).double(), conf_t=torch.randint(0, 5, (2, 8)))
        weights = dict(conf_weight=0.0, l2_weight=0.0, loc_weight=0.0)
        return *heads, asked, weights, lambda head: dict(head, conf=z_scores(head['conf']))
    if name == 'CWDLoss':
        return (
            *(torch.randn(2, 3, 4, 5).double() for _ in range(2)),
            {},
            {},
            lambda x: z_scores(x.flatten(2)).view_as(x),
        )
    if name == 'LDLoss':
        boxes = [torch.randn(6, 20, dtype=torch.float64) * 3 for _ in range(2)]
        asked = dict(pos_inds=torch.tensor([0, 4]), vlr_inds=torch.tensor([1, 5]))
        return *boxes, asked, dict(reg_max=4), lambda x: z_scores(x.view(6, 4, 5)).view(6, 20)
    return *rows, {k: v for k, v in labels.items() if name != 'KDLoss'}, {}, z_scores


def total(value):
    return sum(value.values()) if isinstance(value, dict) else value


def leaf(value):
    """The tensor that the temperature divides."""
    return value['conf'] if isinstance(value, dict) else value


def test_every_loss_with_a_temperature_is_here():
    """Named T, tau, Temp or temperature; LDLoss has three."""
    found = {}
    for name in losses.__all__:
        for key in inspect.signature(getattr(losses, name).__init__).parameters:
            if key in ('T', 'tau', 'Temp', 'temperature') or key.endswith('_T'):
                found.setdefault(name, []).append(key)
    assert {name: keys for name, keys in found.items() if name in TEMPERATURES} == TEMPERATURES
    others = {name for name in found if name not in TEMPERATURES}
    assert others <= {'FBKDLoss'}, others  # whose temperature sharpens attention


@pytest.mark.parametrize('name', TEMPERATURES)
def test_standardize_is_z_scores_first(name):
    student, teacher, asked, options, scores = case(name)
    loss_class = getattr(losses, name)
    found = total(loss_class(standardize=True, **options)(student, teacher, **asked))
    expected = total(loss_class(**options)(scores(student), scores(teacher), **asked))
    plain = total(loss_class(**options)(student, teacher, **asked))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert abs(found - plain) > 1e-6


@pytest.mark.parametrize('name', TEMPERATURES)
def test_a_learnt_temperature_is_a_number_to_the_student(name):
    student, teacher, asked, options, _ = case(name)
    if name == 'LDLoss':
        asked.update({f'cls_{side}': torch.randn(6, 3).double() for side in ('student', 'teacher')})
    learnt = getattr(losses, name)(**{key: LEARNT for key in TEMPERATURES[name]}, **options).double()
    modules = [m for m in learnt.modules() if isinstance(m, CurriculumTemperature)]
    assert len(modules) == len(TEMPERATURES[name])
    fixed = getattr(losses, name)(**{key: modules[0]().item() for key in TEMPERATURES[name]}, **options)
    gradients, values = [], []
    for loss in (learnt, fixed):
        x = leaf(student).clone().requires_grad_()
        value = total(loss(dict(student, conf=x) if isinstance(student, dict) else x, teacher, **asked))
        value.backward()
        gradients.append(x.grad)
        values.append(value.detach())
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)
    assert all(m.global_T.grad is not None and m.global_T.grad.any() for m in modules)


@pytest.mark.parametrize('name', TEMPERATURES)
def test_wrong_temperatures_name_the_loss_and_the_key(name):
    options = case(name)[3]
    for key in TEMPERATURES[name]:
        for wrong in (0, -1.0, 'warm', True):
            with pytest.raises(ValueError, match=rf'{name}: {key}={wrong!r}, expected a temperature above 0'):
                getattr(losses, name)(**{key: wrong}, **options)


def test_z_scores_of_a_map_leave_the_padding_out():
    """CWD over the positions of images of different size, against z-scores of each image cut to its size."""
    student, teacher = (torch.randn(2, 3, 4, 6).double() for _ in range(2))
    sizes, shape = [(32, 48), (16, 32)], (32, 48)
    found = losses.CWDLoss(standardize=True)(student, teacher, sizes, shape)
    alone = [
        losses.CWDLoss()(*(z_scores(x[i : i + 1, :, :h, :w].flatten(2)).view(1, 3, h, w) for x in (student, teacher)))
        for i, (h, w) in enumerate([(4, 6), (2, 4)])
    ]
    torch.testing.assert_close(found, sum(alone) / 2, rtol=1e-6, atol=0)


def test_z_scores_of_few_numbers_are_finite():
    ignored = torch.tensor([[False, True, True, True], [True] * 4, [False, False, True, True]])
    x = torch.randn(3, 4).double().requires_grad_()
    z = standardise(x, ignored=ignored)
    assert torch.isfinite(z).all() and not z[:2].any() and not z[ignored].any()
    torch.testing.assert_close(z[2, :2].abs(), torch.full((2,), 0.5**0.5).double(), rtol=1e-5, atol=0)
    assert torch.isfinite(torch.autograd.grad(z.square().sum(), x)[0]).all()
