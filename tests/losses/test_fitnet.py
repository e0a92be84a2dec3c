import pytest
import torch

from kd_det.losses.fitnet import FitNetLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref = reference('fitnet')
    student = ref('student', dtype).requires_grad_()
    for loss in (FitNetLoss(), FitNetLoss(8, 8)):
        value = loss(student, ref('teacher', dtype))
        close(value, ref('loss'), TOL[dtype], 'loss')
        close(torch.autograd.grad(value, student)[0], ref('grad_student'), TOL[dtype], 'grad_student')


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['reg0.', 'reg1.', 'reg2.'])
def test_reference_with_regressor(reference, close, case, dtype):
    ref, tol = reference('fitnet'), TOL[dtype]
    student, teacher = ref(f'{case}student', dtype).requires_grad_(), ref(f'{case}teacher', dtype)
    loss = FitNetLoss(5, 6, 'conv_bn_relu', student.shape[2:], teacher.shape[2:])
    for name, parameter in loss.align.named_parameters():
        parameter.data.copy_(ref(f'{case}param.{name}'))
    loss.to(dtype)
    value = loss(student, teacher)
    value.backward()
    close(value, ref(f'{case}loss'), tol, 'loss')
    close(student.grad, ref(f'{case}grad_student'), tol, 'grad_student')
    for name, parameter in loss.align.named_parameters():
        if name == 'conv.bias':  # nothing but rounding: batch norm takes it off again
            assert parameter.grad.abs().max() < tol
        else:
            close(parameter.grad, ref(f'{case}grad_param.{name}'), tol, name)


def test_plain_formula_and_gradcheck():
    torch.manual_seed(0)
    loss = FitNetLoss(2, 3, loss_weight=5.0).double()
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    regressed = torch.einsum('oc,bchw->bohw', loss.align.weight[:, :, 0, 0], student) + loss.align.bias[:, None, None]
    torch.testing.assert_close(loss(student, teacher), 5 * ((regressed - teacher) ** 2).sum() / teacher.numel())
    assert torch.autograd.gradcheck(loss, (student, teacher))
    assert FitNetLoss()(student, student) == 0


def test_align_only_where_channels_differ():
    assert not FitNetLoss(4, 4).state_dict() and FitNetLoss(3, 4).align.weight.shape == (4, 3, 1, 1)


def test_one_value_per_channel():
    student = torch.randn(1, 3, 1, 1, requires_grad=True)
    FitNetLoss(3, 4, 'conv_bn_relu')(student, torch.full((1, 4, 1, 1), 9.0)).backward()
    assert torch.isfinite(student.grad).all()


def test_errors():
    with pytest.raises(ValueError, match=r'student must have 3 channels.*\(1, 4, 5, 5\)'):
        FitNetLoss(3, 4)(torch.zeros(1, 4, 5, 5), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'agree in B, H and W.*\(1, 4, 5, 6\).*\(1, 4, 5, 5\)'):
        FitNetLoss()(torch.zeros(1, 4, 5, 6), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'size \(3, 4\) to a teacher of size \(5, 7\)'):
        FitNetLoss(3, 4, 'conv_bn_relu', (3, 4), (5, 7))
    with pytest.raises(ValueError, match="regressor='conv'.*expected 'conv1x1'"):
        FitNetLoss(3, 4, 'conv')
    with pytest.raises(ValueError, match='student_channels=3, teacher_channels=None'):
        FitNetLoss(3)
