import pytest
import torch
import torch.nn.functional as F

from kd_det.losses.nst import NSTLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


def slow_loss(student, teacher):
    """One pair of channels at a time."""

    def mean(a, b):
        pairs = [(F.normalize(u, dim=0) @ F.normalize(v, dim=0)) ** 2 for x, y in zip(a, b) for u in x for v in y]
        return sum(pairs) / len(pairs)

    s, t = student.flatten(2), teacher.flatten(2)
    return mean(t, t) + mean(s, s) - 2 * mean(s, t)


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['', 'pool.'])
def test_reference(reference, close, case, dtype):
    ref, tol = reference('nst'), TOL[dtype]
    student = ref(f'{case}student', dtype).requires_grad_()
    value = NSTLoss()(student, ref(f'{case}teacher', dtype))
    value.backward()
    close(value, ref(f'{case}loss'), tol, 'loss')
    close(student.grad, ref(f'{case}grad_student'), tol, 'grad_student')


@pytest.mark.parametrize('size', [(1, 1), (1, 3), (2, 3)])
def test_plain_formula(size):
    """With fewer positions than channels, and with more."""
    torch.manual_seed(0)
    student = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 5, *size, dtype=torch.float64)
    value, slow = NSTLoss(2.0)(student, teacher), 2 * slow_loss(student, teacher)
    torch.testing.assert_close(value, slow, rtol=1e-11, atol=1e-14)
    found, expected = (torch.autograd.grad(v, student)[0] for v in (value, slow))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_maps_that_are_not_square():
    torch.manual_seed(1)
    student, teacher = torch.randn(2, 3, 12, 16).double(), torch.randn(2, 4, 6, 8).double()
    torch.testing.assert_close(NSTLoss()(student, teacher), slow_loss(F.avg_pool2d(student, 2), teacher))


@pytest.mark.parametrize('size', [(1, 2), (3, 4)])
def test_dead_channels(size):
    torch.manual_seed(2)
    student = torch.randn(2, 4, *size).double()
    student[0, 1] = 0
    student[1] = 0
    student.requires_grad_()
    teacher = torch.randn(2, 5, *size).double()
    value = NSTLoss()(student, teacher)
    value.backward()
    torch.testing.assert_close(value, slow_loss(student, teacher))
    assert torch.isfinite(student.grad).all() and not student.grad[1].any() and student.grad[0, 0].any()


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(3)
    student = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(NSTLoss(), (student, torch.randn(2, 2, 3, 4, dtype=torch.float64)))
    value = NSTLoss()(student, 3 * student[:, [2, 0, 1]])  # order and scale of the channels do not matter
    assert abs(value) < 1e-15 and torch.autograd.grad(value, student)[0].abs().max() < 1e-15


def test_nothing_larger_than_the_maps():
    torch.manual_seed(4)
    student, saved = torch.randn(1, 64, 32, 32, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        NSTLoss()(student, torch.randn(1, 64, 32, 32))
    assert max(saved) <= student.numel()


def test_errors():
    with pytest.raises(ValueError, match=r'agree in B.*\(2, 3, 5, 5\).*\(1, 3, 5, 5\)'):
        NSTLoss()(torch.zeros(2, 3, 5, 5), torch.zeros(1, 3, 5, 5))
