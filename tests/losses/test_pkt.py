import math

import pytest
import torch

from kd_det.losses.pkt import PKTLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('pkt'), TOL[dtype]
    loss, teacher = PKTLoss(eps=ref.hparams['eps']), ref('teacher', dtype)
    student = ref('student', dtype).requires_grad_()
    value = loss(student, teacher)
    value.backward()
    close(value, ref('loss'), tol, 'loss')
    close(student.grad, ref('grad_student'), tol, 'grad_student')


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference_zero_row(reference, close, dtype):
    ref, tol = reference('pkt'), TOL[dtype]
    student = ref('zero_row.student', dtype).requires_grad_()
    value = PKTLoss(eps=ref.hparams['eps'])(student, ref('teacher', dtype))
    value.backward()
    close(value, ref('zero_row.loss'), tol, 'loss')
    empty = (student == 0).all(1)
    assert empty.sum() == 1 and not student.grad[empty].any()
    assert torch.isfinite(student.grad).all() and student.grad[~empty].all()


def test_equals_slow_formula():
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3, 2, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    matrices = []
    for x in (student.flatten(1).tolist(), teacher.tolist()):
        norms = [math.hypot(*row) for row in x]
        cosines = [[sum(a * b for a, b in zip(i, j)) / p / q for j, q in zip(x, norms)] for i, p in zip(x, norms)]
        rows = [[(v + 1) / 2 for v in row] for row in cosines]
        matrices.append([[v / sum(row) for v in row] for row in rows])
    expected = sum(t * math.log(t / s) for r, q in zip(*matrices) for s, t in zip(r, q)) / 25
    assert abs(PKTLoss(eps=0.0)(student, teacher).item() - expected) < 1e-12


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    student = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: PKTLoss()(s, teacher), (student,))
    value = PKTLoss()(student, student.detach())
    (gradient,) = torch.autograd.grad(value, student)
    assert value == 0 and gradient.abs().max() < 1e-7


@pytest.mark.parametrize('rows', [0, 1, 2, 5])
def test_few_zero_and_opposite_rows(rows):
    torch.manual_seed(2)
    student, teacher = torch.randn(rows, 4), torch.randn(rows, 3)
    student[1:2] = -student[:1]
    teacher[2:3] = 0
    student.requires_grad_()
    value = PKTLoss()(student, teacher)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all() and (value == 0) == (rows < 2)
    silent = torch.zeros(rows, 4, requires_grad=True)
    PKTLoss()(silent, teacher).backward()
    assert not silent.grad.any()


def test_errors():
    with pytest.raises(ValueError, match=r'as many rows.*\(3, 4\).*\(2, 4\)'):
        PKTLoss()(torch.zeros(3, 4), torch.zeros(2, 4))
