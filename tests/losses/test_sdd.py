import json

import pytest
import torch
from torch import nn

from kd_det.losses.kd import KDLoss
from kd_det.losses.sdd import SDDLoss, regional_logits, spatial_pyramid

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


def make(ref):
    return SDDLoss(*(ref.hparams[name] for name in ('temperature', 'weight_complementary', 'weight_consistent')))


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('sdd'), TOL[dtype]
    loss, labels, teacher = make(ref), ref('target'), ref('teacher', dtype)
    student = ref('student', dtype).requires_grad_()
    value = loss(student, teacher, labels)
    value.backward()
    assert torch.equal(loss.region_weight(teacher, labels).double(), ref('region_weight'))
    close(value, ref('loss'), tol, 'loss')
    close(student.grad, ref('grad_student'), tol, 'grad_student')


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference_from_features(reference, close, dtype):
    ref, tol = reference('sdd'), TOL[dtype]
    grids, logits = json.loads(ref.hparams['M']), []
    maps = [ref('feat_student', dtype).requires_grad_(), ref('feat_teacher', dtype)]
    layers = []
    for features, role in zip(maps, 'st'):
        layer = nn.Linear(features.shape[1], 5)
        layer.load_state_dict(ref.under(f'param.linear_{role}.'))
        layers.append(layer.to(dtype))
        logits.append(regional_logits(features, layer, grids))
    close(spatial_pyramid(maps[0], grids), ref('spp_student'), tol, 'pyramid')
    close(logits[0], ref('student'), tol, 'student logits')
    close(logits[1], ref('teacher'), tol, 'teacher logits')
    value = make(ref)(*logits, ref('target'))
    value.backward()
    close(value, ref('from_features.loss'), tol, 'loss')
    close(maps[0].grad, ref('from_features.grad_feat_student'), tol, 'grad_feat_student')
    close(layers[0].weight.grad, ref('from_features.grad_param.linear_s.weight'), tol, 'grad of the layer')


def test_one_region_is_soft_targets():
    torch.manual_seed(0)
    student, teacher = torch.randn(6, 4), torch.randn(6, 4)
    labels = torch.tensor([0, 3, -1, 4, 2, 1])
    weights = torch.tensor([1.0, 1, 1, 1, 1, 0])
    for foreground_only, rows in ((False, [0, 1, 4]), (True, [0, 4])):
        loss = SDDLoss(foreground_only=foreground_only)
        expected = KDLoss()(student[rows], teacher[rows])
        torch.testing.assert_close(loss(student[..., None], teacher[..., None], labels, weights), expected)
        found = loss(student[..., None], teacher[..., None], labels, weights, 6.0)
        torch.testing.assert_close(found, expected if foreground_only else expected / 2)


def test_pyramid_is_pooled_out_of_its_finest_grid():
    maps = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    found = spatial_pyramid(maps)
    assert found.shape == (2, 3, 21)
    cells = []
    for y in range(4):
        for x in range(4):
            rows, columns = slice(y * 7 // 4, -(-(y + 1) * 7 // 4)), slice(x * 7 // 4, -(-(x + 1) * 7 // 4))
            cells.append(maps[:, :, rows, columns].mean((2, 3)))
    torch.testing.assert_close(found[..., 5:], torch.stack(cells, -1))
    torch.testing.assert_close(found[..., 0], torch.stack(cells, -1).mean(-1))
    torch.testing.assert_close(found[..., 2], torch.stack([cells[i] for i in (2, 3, 6, 7)], -1).mean(-1))


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    student = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    teacher, labels = torch.randn(3, 4, 5, dtype=torch.float64), torch.tensor([0, 3, 2])
    for standardize in (False, True):
        loss = SDDLoss(2.0, standardize=standardize)
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, teacher, labels), (student,))
        assert loss(student, student.detach(), labels).abs() < 1e-14


@pytest.mark.parametrize('shape', [(0, 4, 5), (2, 1, 5), (2, 3, 1)])
def test_few_rows_and_huge_logits(shape):
    student = (1e4 * torch.randn(shape)).requires_grad_()
    labels = torch.zeros(shape[0], dtype=torch.long)
    value = SDDLoss()(student, 1e4 * torch.randn(shape), labels)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()
    assert (value == 0) == (shape[0] == 0 or shape[1] == 1)


def test_errors():
    with pytest.raises(ValueError, match=r'equal shape.*\(3, 4, 5\).*\(3, 4, 21\).*labels \(3,\)'):
        SDDLoss()(torch.zeros(3, 4, 5), torch.zeros(3, 4, 21), torch.zeros(3))
    with pytest.raises(ValueError, match=r'labels \(2,\)'):
        SDDLoss()(torch.zeros(3, 4, 5), torch.zeros(3, 4, 5), torch.zeros(2))
    with pytest.raises(ValueError, match=r'M=\[1, 3, 4\]'):
        spatial_pyramid(torch.zeros(1, 2, 8, 8), [1, 3, 4])
    with pytest.raises(ValueError, match=r'\(N, C, H, W\).*\(1, 2\)'):
        spatial_pyramid(torch.zeros(1, 2))
