import pytest
import torch

from kd_det.losses.sp import SPLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['', 'inst.'])
def test_reference(reference, close, case, dtype):
    ref, tol = reference('sp'), TOL[dtype]
    student, teacher = ref(f'{case}student', dtype).requires_grad_(), ref(f'{case}teacher', dtype)
    value = SPLoss()(student, teacher)
    value.backward()
    close(value, ref(f'{case}loss'), tol, 'loss')
    close(student.grad, ref(f'{case}grad_student'), tol, 'grad_student')


def test_equals_slow_formula():
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3, 2, 2, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    matrices = []
    for x in (student.flatten(1), teacher):
        rows = [[sum(a * b for a, b in zip(i, j)) for j in x.tolist()] for i in x.tolist()]
        matrices.append([[v / sum(u * u for u in row) ** 0.5 for v in row] for row in rows])
    expected = sum((a - b) ** 2 for r, q in zip(*matrices) for a, b in zip(r, q)) / 25
    assert abs(SPLoss(2.0)(student, teacher).item() - 2 * expected) < 1e-12


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    student = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: SPLoss()(s, torch.ones(5, 2, dtype=torch.float64).cumsum(0)), (student,))
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    value = SPLoss()(student, 3 * student.detach() @ rotation)  # a turn and a scale change no similarity
    (gradient,) = torch.autograd.grad(value, student)
    assert value < 1e-28 and gradient.abs().max() < 1e-14


@pytest.mark.parametrize('rows', [0, 1, 2, 5])
def test_few_and_zero_rows(rows):
    student, teacher = torch.randn(rows, 4), torch.randn(rows, 3)
    student[2:3] = 0
    student.requires_grad_()
    value = SPLoss()(student, teacher)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()
    assert (value == 0) == (rows < 2)
    silent = torch.zeros(rows, 4, requires_grad=True)
    SPLoss()(silent, teacher).backward()
    assert not silent.grad.any()


def test_errors():
    with pytest.raises(ValueError, match=r'as many rows.*\(3, 4\).*\(2, 4\)'):
        SPLoss()(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r'as many rows.*\(3,\)'):
        SPLoss()(torch.zeros(3), torch.zeros(3))
