import pytest
import torch

from kd_det.losses.at import ATLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


def slow_loss(student, teacher, p):
    """One image and one position at a time."""
    total = 0.0
    for s, t in zip(student, teacher):
        a, b = ([sum(abs(c) ** p for c in x[:, i]) for i in range(x.shape[1])] for x in (s.flatten(1), t.flatten(1)))
        norm_a, norm_b = (sum(v**2 for v in values) ** 0.5 for values in (a, b))
        total = total + sum((u / norm_a - v / norm_b) ** 2 for u, v in zip(a, b)) / len(a)
    return total / len(student)


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('at'), TOL[dtype]
    loss, total = ATLoss(p=ref.hparams['p']), 0.0
    for case, part, tail in [
        ('', 'loss.0', '.0'),
        ('', 'loss.1', '.1'),
        ('pool0.', 'loss', ''),
        ('pool1.', 'loss', ''),
    ]:
        student = ref(f'{case}student{tail}', dtype).requires_grad_()
        value = loss(student, ref(f'{case}teacher{tail}', dtype))
        value.backward()
        close(value, ref(f'{case}{part}'), tol, f'{case}{part}')
        close(student.grad, ref(f'{case}grad_student{tail}'), tol, f'{case}grad_student{tail}')
        total = total + value * (case == '')
    close(total, ref('loss'), tol, 'loss')


@pytest.mark.parametrize('p', [1, 2, 3])
def test_plain_formula(p):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 2, 4, dtype=torch.float64), torch.randn(2, 2, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(ATLoss(p=p)(student, teacher), slow_loss(student, teacher, p), rtol=1e-12, atol=0)
    torch.testing.assert_close(ATLoss(p, 3.0, True)(student, teacher), 24 * slow_loss(student, teacher, p))


def test_maps_that_are_not_square():
    torch.manual_seed(1)
    student, teacher = torch.randn(2, 3, 12, 16), torch.randn(2, 4, 6, 8)
    pooled = torch.nn.functional.avg_pool2d(student, 2)
    torch.testing.assert_close(ATLoss()(student, teacher), slow_loss(pooled, teacher, 2))
    torch.testing.assert_close(ATLoss()(teacher, student), slow_loss(teacher, pooled, 2))


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(2)
    student = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 2, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(ATLoss(), (student, teacher))
    assert ATLoss()(student, 2 * student) < 1e-30  # the scale does not matter


def test_dead_map():
    student = torch.zeros(1, 3, 4, 5, requires_grad=True)
    value = ATLoss()(student, torch.randn(1, 3, 4, 5))
    value.backward()
    assert abs(value - 1 / 20) < 1e-6 and not student.grad.any()


def test_errors():
    with pytest.raises(ValueError, match=r'agree in B.*\(2, 3, 5, 5\).*\(1, 3, 5, 5\)'):
        ATLoss()(torch.zeros(2, 3, 5, 5), torch.zeros(1, 3, 5, 5))
    with pytest.raises(ValueError, match=r'two maps of shape.*\(2, 3\)'):
        ATLoss()(torch.zeros(2, 3), torch.zeros(2, 3))
