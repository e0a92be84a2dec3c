import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal

from kd_det.losses.vid import VIDLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['', 'pool.'])
def test_reference(reference, close, case, dtype):
    ref, tol = reference('vid'), TOL[dtype]
    hp = ref.hparams
    loss = VIDLoss(8, 6, hp['mid_channels'], hp['init_pred_var'], hp['eps'])
    close(loss.log_scale, ref('log_scale_init'), 1e-6, 'log_scale_init')
    loss.load_state_dict(ref.under('param.'))
    loss.to(dtype)
    loss.load_state_dict(ref.under('param.'))
    student = ref(f'{case}student', dtype).requires_grad_()
    value = loss(student, ref(f'{case}teacher', dtype))
    value.backward()
    close(value, ref(f'{case}loss'), tol, 'loss')
    close(student.grad, ref(f'{case}grad_student'), tol, 'grad_student')
    if not case:
        for name, parameter in loss.named_parameters():
            close(parameter.grad, ref(f'grad_param.{name}'), tol, name)


def test_is_the_likelihood_of_a_gaussian():
    torch.manual_seed(0)
    loss = VIDLoss(3, 4, init_pred_var=2.0, loss_weight=3.0).double()
    student, teacher = torch.randn(2, 3, 6, 8).double(), torch.randn(2, 4, 3, 4).double()
    mean = loss.regressor(F.avg_pool2d(student, 2))
    likelihood = Normal(mean, math.sqrt(2.0)).log_prob(teacher).mean() + 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(loss(student, teacher), -3 * likelihood, rtol=1e-6, atol=0)


def test_gradcheck_and_perfect_prediction():
    torch.manual_seed(1)
    loss = VIDLoss(2, 3).double()
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(loss, (student, teacher))
    value = loss(student, loss.regressor(student).detach())
    assert abs(value - 0.5 * math.log(5)) < 1e-6 and not torch.autograd.grad(value, student)[0].any()


@pytest.mark.parametrize('scale', [800.0, -800.0])
def test_huge_scale_stays_finite(scale):
    loss = VIDLoss(2, 3)
    loss.log_scale.data.fill_(scale)
    student = torch.randn(1, 2, 3, 4, requires_grad=True)
    value = loss(student, torch.randn(1, 3, 3, 4))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all() and torch.isfinite(loss.log_scale.grad).all()


def test_large_variance_at_the_start():
    assert F.softplus(VIDLoss(2, 3, init_pred_var=1e4).log_scale)[0].item() == pytest.approx(1e4, rel=1e-5)


def test_an_empty_batch_has_no_mean():
    loss = VIDLoss(3, 4)
    student = torch.zeros(0, 3, 5, 5, requires_grad=True)
    value = loss(student, torch.zeros(0, 4, 5, 5))
    value.backward()
    assert value.isnan() and student.grad.shape == student.shape


def test_errors():
    with pytest.raises(ValueError, match=r'student must have 3 channels.*\(1, 4, 5, 5\)'):
        VIDLoss(3, 4)(torch.zeros(1, 4, 5, 5), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'agree in B'):
        VIDLoss(3, 4)(torch.zeros(2, 3, 5, 5), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match='init_pred_var=0'):
        VIDLoss(3, 4, init_pred_var=0)
