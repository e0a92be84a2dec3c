import pytest
import torch
import torch.nn.functional as F

from kd_det.losses.fsp import FSPLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


def slow_loss(student, teacher):
    """Over the outer products of all positions, as it is written."""

    def matrix(a, b):
        return (b.unsqueeze(2) * a.unsqueeze(1)).mean((3, 4))

    pairs = zip(student, student[1:], teacher, teacher[1:])
    return sum(((matrix(a, b) - matrix(c, d)) ** 2).mean() for a, b, c, d in pairs)


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case, levels', [('', 3), ('rect.', 2)])
def test_reference(reference, close, case, levels, dtype):
    ref, tol, loss = reference('fsp'), TOL[dtype], FSPLoss()
    student = [ref(f'{case}student.{i}', dtype).requires_grad_() for i in range(levels)]
    teacher = [ref(f'{case}teacher.{i}', dtype) for i in range(levels)]
    value = loss(student, teacher)
    value.backward()
    close(value, ref(f'{case}loss'), tol, 'loss')
    for i in range(levels):
        close(student[i].grad, ref(f'{case}grad_student.{i}'), tol, f'grad_student.{i}')
    for i in range(levels - 1):
        close(loss(student[i : i + 2], teacher[i : i + 2]), ref(f'{case}loss.{i}'), tol, f'loss.{i}')
    if not case:
        close(loss.matrix(*student[:2]), ref('fsp_matrix_student.0'), tol, 'matrix')


def test_levels_that_are_not_square():
    torch.manual_seed(0)
    student = [torch.randn(2, c, *size).double() for c, size in ((3, (12, 16)), (4, (6, 8)), (2, (3, 4)))]
    teacher = [torch.randn_like(s) for s in student]
    expected = 0.0
    for i in range(2):
        pairs = [[F.avg_pool2d(x[i], 2), x[i + 1]] for x in (student, teacher)]
        expected = expected + slow_loss(*pairs)
    torch.testing.assert_close(FSPLoss(3.0)(student, teacher), 3 * expected)
    upwards = [[F.avg_pool2d(x[0], 2), x[1]][::-1] for x in (student, teacher)]
    torch.testing.assert_close(FSPLoss()([student[1], student[0]], [teacher[1], teacher[0]]), slow_loss(*upwards))


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    a = torch.randn(2, 2, 4, 6, dtype=torch.float64, requires_grad=True)
    b = torch.randn(2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    teacher = [torch.randn_like(a), torch.randn_like(b)]
    assert torch.autograd.gradcheck(lambda a, b: FSPLoss()([a, b], teacher), (a, b))
    assert FSPLoss()([a, b], [a, b]) == 0


def test_nothing_larger_than_the_maps():
    torch.manual_seed(2)
    student, saved = [torch.randn(1, 64, 32, 32, requires_grad=True) for _ in range(2)], []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        FSPLoss()(student, [torch.randn(1, 64, 32, 32) for _ in range(2)])
    assert max(saved) <= student[0].numel()


def test_errors():
    a, b = torch.zeros(1, 3, 5, 6), torch.zeros(1, 4, 5, 6)
    with pytest.raises(ValueError, match=r'2 or more, are expected, found student \[\(1, 3, 5, 6\)\]'):
        FSPLoss()([a], [a])
    with pytest.raises(ValueError, match='lists of as many maps'):
        FSPLoss()([a, b], [a, b, b])
    with pytest.raises(ValueError, match=r'found student \(1, 3, 5, 6\)'):
        FSPLoss()(a, a)
    with pytest.raises(ValueError, match=r'same number of channels.*\(1, 4, 5, 6\).*\(1, 3, 5, 6\) at level 1'):
        FSPLoss()([a, b], [a, a])
