import math

import pytest
import torch

from kd_det.losses.crosskd import QFLKDLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('crosskd_qfl'), TOL[dtype]
    student, teacher = ref('student', dtype).requires_grad_(), ref('teacher', dtype)
    value = QFLKDLoss(ref.hparams['beta'])(student, teacher, ref('weight', dtype), ref.hparams['avg_factor'])
    value.backward()
    close(value, ref('loss'), tol, 'loss')
    close(student.grad, ref('grad_student'), tol, 'grad_student')


@pytest.mark.parametrize('beta', [0.0, 1.0, 2.0])
def test_equals_slow_formula(beta):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    weights = torch.rand(2, 4, 5, dtype=torch.float64)
    total = number = 0.0
    for b in range(2):
        for y in range(4):
            for x in range(5):
                p, q = ([1 / (1 + math.exp(-v)) for v in z[b, :, y, x].tolist()] for z in (student, teacher))
                terms = (abs(i - j) ** beta * (-j * math.log(i) - (1 - j) * math.log(1 - i)) for i, j in zip(p, q))
                total += weights[b, y, x].item() * sum(terms)
                number += weights[b, y, x].item() * max(q)
    loss = QFLKDLoss(beta, loss_weight=0.4)
    assert abs(loss(student, teacher, weights).item() - 0.4 * total / number) < 1e-12
    assert abs(loss(student, teacher, weights, 3.0).item() - 0.4 * total / 3) < 1e-12


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    student = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(6, 3, dtype=torch.float64)
    for beta in (0.0, 1.0, 2.0):
        loss = QFLKDLoss(beta)
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, teacher), (student,))
        value = loss(student, student.detach())
        (gradient,) = torch.autograd.grad(value, student)
        assert gradient.abs().max() < 1e-14 and (value == 0) == (beta > 0)


def test_huge_logits_and_no_rows():
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    value = QFLKDLoss()(student, -student.detach())
    value.backward()
    assert value.item() == 2e4 and torch.isfinite(student.grad).all()
    empty = torch.zeros(0, 3, requires_grad=True)
    value = QFLKDLoss()(empty, empty.detach())
    value.backward()
    assert value == 0 and empty.grad.shape == (0, 3)


def test_errors():
    with pytest.raises(ValueError, match=r'equal shape.*\(3, 4\).*\(3, 5\)'):
        QFLKDLoss()(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r'label_weights must have shape \(3,\)'):
        QFLKDLoss()(torch.zeros(3, 4), torch.zeros(3, 4), torch.ones(3, 4))
    with pytest.raises(ValueError, match='beta=0.5'):
        QFLKDLoss(0.5)
