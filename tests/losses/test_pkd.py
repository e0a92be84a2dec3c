import pytest
import torch
import torch.nn.functional as F

from kd_det.losses.pkd import PKDLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['', 'resize.stu.', 'resize.tea.'])
def test_reference(reference, close, case, dtype):
    ref, tol, inputs = reference('pkd'), TOL[dtype], 'resize.' if case else ''
    loss = PKDLoss(ref.hparams['loss_weight'], resize_stu='tea' not in case, eps=ref.hparams['eps'])
    student, teacher = ref(f'{inputs}student', dtype).requires_grad_(), ref(f'{inputs}teacher', dtype)
    value = loss(student, teacher)
    value.backward()
    close(value, ref(f'{case}loss'), tol, 'loss')
    close(student.grad, ref(f'{case}grad_student'), tol, 'grad_student')


@pytest.mark.parametrize('dtype', list(TOL))
def test_constant_channel(reference, close, dtype):
    ref = reference('pkd')
    student = ref('const_channel.student', dtype).requires_grad_()
    value = PKDLoss(ref.hparams['loss_weight'])(student, ref('teacher', dtype))
    close(value, ref('const_channel.loss'), TOL[dtype], 'loss')
    value.backward()
    assert torch.isfinite(student.grad).all()
    gradient = student.grad.abs().amax((0, 2, 3))
    assert gradient.max() > 1e4 * gradient.median()
    student.grad = None
    PKDLoss(ref.hparams['loss_weight'], eps=0.1)(student, ref('teacher', dtype)).backward()  # what the docs advise
    assert student.grad.abs().amax() < 1


def test_is_the_correlation():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5, 6, dtype=torch.float64), torch.randn(2, 3, 5, 6, dtype=torch.float64)
    flat_s, flat_t = (x.transpose(0, 1).flatten(1) for x in (student, teacher))
    correlation = [torch.corrcoef(torch.stack(rows))[0, 1] for rows in zip(flat_s, flat_t)]
    expected = 59 / 60 * (1 - sum(correlation) / 3)
    torch.testing.assert_close(PKDLoss(eps=0.0)(student, teacher), expected, rtol=1e-12, atol=0)


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 2, 6, 4, dtype=torch.float64)
    for resize in (True, False):
        assert torch.autograd.gradcheck(lambda s, r=resize: PKDLoss(resize_stu=r)(s, teacher), (student,))
    assert PKDLoss(eps=0.0)(student, 3 * student + 2) < 1e-28
    assert PKDLoss()(student, student) == 0


def test_equal_height_other_width():
    student, teacher = torch.randn(2, 2, 4, 5), torch.randn(2, 2, 4, 8)
    resized = F.interpolate(student, (4, 8), mode='bilinear', align_corners=False)
    torch.testing.assert_close(PKDLoss()(student, teacher), PKDLoss()(resized, teacher))


def test_one_value_per_channel():
    student = torch.randn(1, 3, 1, 1, requires_grad=True)
    value = PKDLoss()(student, torch.randn(1, 3, 1, 1))
    value.backward()
    assert value == 0 and not student.grad.any()


def test_errors():
    with pytest.raises(ValueError, match=r'same number of channels.*\(1, 3, 5, 5\).*\(1, 4, 5, 5\)'):
        PKDLoss()(torch.zeros(1, 3, 5, 5), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'agree in B.*\(2, 3, 5, 5\)'):
        PKDLoss()(torch.zeros(2, 3, 5, 5), torch.zeros(1, 3, 5, 5))
    with pytest.raises(ValueError, match=r'two maps of shape.*\(3, 5, 5\)'):
        PKDLoss()(torch.zeros(3, 5, 5), torch.zeros(1, 3, 5, 5))
