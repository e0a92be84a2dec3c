import math

import pytest
import torch

from kd_det.losses.ofa import OFALoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['eps1.', 'eps1.5.', ''])
def test_reference(reference, close, case, dtype):
    ref, tol = reference('ofa'), TOL[dtype]
    eps = float(case[3:-1]) if case else ref.hparams['eps'][-1]
    student, teacher = ref('student', dtype).requires_grad_(), ref('teacher', dtype)
    value = OFALoss(eps, ref.hparams['temperature'])(student, teacher, ref('target'))
    value.backward()
    close(value, ref(f'{case}loss'), tol, 'loss')
    close(student.grad, ref(f'{case}grad_student'), tol, 'grad_student')


def slow_loss(student, teacher, labels, rows, eps, T):
    total = 0.0
    for i in rows:
        sum_s, sum_t = (sum(math.exp(z / T) for z in x[i].tolist()) for x in (student, teacher))
        for c, (s, t) in enumerate(zip(student[i].tolist(), teacher[i].tolist())):
            p, q = math.exp(t / T) / sum_t, math.exp(s / T) / sum_s
            weight = (p + 1) ** eps - 1 if c == labels[i] else p**eps
            total -= weight * math.log(q)
    return total / len(rows)


@pytest.mark.parametrize('eps, T', [(1.0, 1.0), (0.5, 3.0), (2.5, 0.7)])
def test_equals_slow_formula(eps, T):
    torch.manual_seed(0)
    student, teacher = torch.randn(8, 4, dtype=torch.float64), torch.randn(8, 4, dtype=torch.float64)
    labels = torch.tensor([0, 3, -1, 4, 2, 1, 3, 0])
    weights = torch.tensor([1.0, 1, 1, 1, 1, 0, 1, 1])
    for foreground_only, rows in ((False, [0, 1, 4, 6, 7]), (True, [0, 4, 7])):
        loss = OFALoss(eps, T, foreground_only=foreground_only)
        expected = slow_loss(student, teacher, labels.tolist(), rows, eps, T)
        assert abs(loss(student, teacher, labels, weights).item() - expected) < 1e-12
        expected *= 1 if foreground_only else 5 / 8
        assert abs(loss(student, teacher, labels, weights, avg_factor=8.0).item() - expected) < 1e-12


def test_gradcheck_and_least_at_equality():
    torch.manual_seed(1)
    student = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    teacher, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4])
    for standardize in (False, True):
        loss = OFALoss(1.5, 2.0, standardize)
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, teacher, labels), (student,))
    value = OFALoss()(student, student.detach(), labels)  # with eps=1 the cross entropy to the teacher
    assert torch.autograd.grad(value, student)[0].abs().max() < 1e-14


def test_huge_logits_stay_finite(reference):
    ref = reference('ofa')
    student = ref('student').clone()
    student[0, 0] += 2000
    student.requires_grad_()
    value = OFALoss(1.5)(student, ref('teacher'), ref('target'))
    value.backward()
    assert 10 < value < 1e4 and torch.isfinite(student.grad).all()


@pytest.mark.parametrize('shape', [(0, 4), (3, 1), (1, 2), (0, 4, 2, 3)])
def test_few_rows_and_columns(shape):
    student = torch.randn(shape, requires_grad=True)
    labels = torch.zeros(shape[0], *shape[2:], dtype=torch.long)
    value = OFALoss()(student, torch.randn(shape), labels)
    value.backward()
    assert torch.isfinite(student.grad).all() and (value == 0) == (0 in shape or shape[1] == 1)


def test_errors():
    with pytest.raises(ValueError, match=r'equal shape.*\(3, 4\).*\(3, 5\).*labels \(3,\)'):
        OFALoss()(torch.zeros(3, 4), torch.zeros(3, 5), torch.zeros(3))
    with pytest.raises(ValueError, match='eps=0'):
        OFALoss(eps=0)
    with pytest.raises(ValueError, match='temperature=-2'):
        OFALoss(temperature=-2)
