import pytest
import torch

from kd_det.losses.ab import ABLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('ab'), TOL[dtype]
    student = [ref(f'student.{i}', dtype).requires_grad_() for i in range(3)]
    teacher = [ref(f'teacher.{i}', dtype) for i in range(3)]
    for loss in (ABLoss(margin=ref.hparams['margin']), ABLoss([4, 6, 8], [4, 6, 8])):
        assert not list(loss.parameters())
        value = loss(student, teacher)
        close(value, ref('loss'), tol, 'loss')
        for i, gradient in enumerate(torch.autograd.grad(value, student)):
            close(gradient, ref(f'grad_student.{i}'), tol, f'grad_student.{i}')
            part = loss.boundary(student[i], teacher[i]) * (3 / 1000 / 2 * 2.0 ** (i - 2))
            close(part, ref(f'loss.{i}'), tol, f'loss.{i}')


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference_connector(reference, close, dtype):
    ref, tol = reference('ab'), TOL[dtype]
    loss = ABLoss([5], [6], student_sizes=[(8, 8)], teacher_sizes=[(4, 4)])
    for name, parameter in loss.named_parameters():
        parameter.data.copy_(ref(f'conn.param.{name}'))
    loss.to(dtype)
    student = ref('conn.student', dtype).requires_grad_()
    value = loss([student], [ref('conn.teacher', dtype)])
    value.backward()
    close(value, ref('conn.loss'), tol, 'loss')
    close(student.grad, ref('conn.grad_student'), tol, 'grad_student')
    for name, parameter in loss.named_parameters():
        if name == 'connectors.0.conv.bias':  # nothing but rounding: batch norm takes it off again
            assert parameter.grad.abs().max() < tol
        else:
            close(parameter.grad, ref(f'conn.grad_param.{name}'), tol, name)


def test_plain_formula():
    torch.manual_seed(0)
    student, teacher = ([torch.randn(2, 3, 2, 2).double() * 2, torch.randn(2, 2, 1, 2).double()] for _ in range(2))
    teacher[0][0, 0, 0, 0] = 0  # not above the boundary
    total = 0.0
    for weight, s, t in zip((0.5, 1.0), student, teacher):
        for a, b in zip(s.flatten().tolist(), t.flatten().tolist()):
            total += weight * max(0.0, 0.7 - a if b > 0 else 0.7 + a) ** 2
    expected = torch.tensor(4 * 3 / 1000 * total / 2, dtype=torch.float64)
    torch.testing.assert_close(ABLoss(margin=0.7, loss_weight=4.0)(student, teacher), expected)


def test_gradcheck_and_zero_beyond_the_margin():
    torch.manual_seed(1)
    loss = ABLoss([2], [3]).double()
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: loss([s], [teacher]), (student,))
    same_side = torch.where(teacher > 0, 1.0, -1.0) * (1 + torch.rand_like(teacher))
    same_side.requires_grad_()
    value = ABLoss()([same_side], [teacher])
    value.backward()
    assert value == 0 and not same_side.grad.any()


def test_errors():
    a, b = torch.zeros(1, 3, 5, 6), torch.zeros(1, 4, 5, 6)
    with pytest.raises(ValueError, match=r'level 1: .*same number of channels.*\(1, 3, 5, 6\).*\(1, 4, 5, 6\)'):
        ABLoss()([a, a], [a, b])
    with pytest.raises(ValueError, match='lists of as many maps'):
        ABLoss()([a], [a, b])
    with pytest.raises(ValueError, match='1 levels are expected, found 2'):
        ABLoss([3], [4])([a, a], [b, b])
    with pytest.raises(ValueError, match=r'student_channels=\[3\], teacher_channels=None'):
        ABLoss([3])
    with pytest.raises(ValueError, match=r'student_sizes=\[\(4, 4\)\] with student_channels=None'):
        ABLoss(student_sizes=[(4, 4)], teacher_sizes=[(4, 4)])
