import pytest
import torch
import torch.nn.functional as F

from kd_det.losses import MGDLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('mgd'), TOL[dtype]
    loss = MGDLoss(6, 8, ref.hparams['alpha_mgd'], ref.hparams['lambda_mgd'])
    loss.load_state_dict(ref.under('param.'))
    loss.to(dtype)
    student, teacher, uniform = ref('student', dtype).requires_grad_(), ref('teacher', dtype), ref('uniform', dtype)
    assert torch.equal(loss.mask(teacher, uniform).double(), ref('mask'))
    value = loss(student, teacher, uniform)
    value.backward()
    close(value, ref('loss'), tol, 'loss')
    close(value / loss.alpha_mgd, ref('loss.unweighted'), tol, 'unweighted')
    close(student.grad, ref('grad_student'), tol, 'grad_student')
    for name, parameter in loss.named_parameters():
        close(parameter.grad, ref(f'grad_param.{name}'), tol, name)


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference_channel_mask(reference, close, dtype):
    ref, tol = reference('mgd'), TOL[dtype]
    loss = MGDLoss(8, 8, ref.hparams['alpha_mgd'], ref.hparams['lambda_mgd_channel'], mask_type='channel')
    loss.load_state_dict(ref.under('channel.param.'))
    loss.to(dtype)
    student, teacher = ref('channel.student', dtype).requires_grad_(), ref('teacher', dtype)
    uniform = ref('channel.uniform', dtype)
    assert torch.equal(loss.mask(teacher, uniform).double(), ref('channel.mask'))
    value = loss(student, teacher, uniform)
    value.backward()
    close(value, ref('channel.loss'), tol, 'loss')
    close(student.grad, ref('channel.grad_student'), tol, 'grad_student')


@pytest.mark.parametrize('mask_type, shape', [('spatial', (4, 1, 50, 40)), ('channel', (4, 400, 1, 1))])
def test_share_that_is_erased(mask_type, shape):
    torch.manual_seed(0)
    mask = MGDLoss(400, 400, lambda_mgd=0.65, mask_type=mask_type).mask(torch.zeros(4, 400, 50, 40))
    assert mask.shape == shape and set(mask.unique().tolist()) == {0.0, 1.0}
    deviation = (0.65 * 0.35 / mask.numel()) ** 0.5
    assert abs(mask.mean().item() - 0.35) < 4 * deviation


def test_nothing_or_all_erased():
    torch.manual_seed(1)
    student, teacher = torch.randn(2, 3, 5, 6), torch.randn(2, 3, 5, 6)
    loss = MGDLoss(3, 3, alpha_mgd=1.0, lambda_mgd=0.0)
    first, second = loss.generation[0], loss.generation[2]
    plain = F.conv2d(
        F.conv2d(student, first.weight, first.bias, padding=1).relu(), second.weight, second.bias, padding=1
    )
    torch.testing.assert_close(loss(student, teacher), ((plain - teacher) ** 2).sum() / 2)
    loss.lambda_mgd = 1.0
    torch.testing.assert_close(loss(student, teacher, torch.full((2, 1, 5, 6), 0.5)), loss(0 * student, teacher))


def test_draws_anew_and_follows_the_seed():
    student, teacher = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    loss = MGDLoss(3, 3)
    torch.manual_seed(2)
    first, second = loss(student, teacher), loss(student, teacher)
    torch.manual_seed(2)
    assert loss(student, teacher) == first != second


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(3)
    loss = MGDLoss(2, 3, alpha_mgd=0.1).double()
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    uniform = torch.rand(2, 1, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, uniform), (student,))
    generated = loss.generation(loss.align(student) * loss.mask(teacher, uniform)).detach()
    assert loss(student, generated, uniform) == 0


def test_align_only_where_channels_differ():
    assert set(MGDLoss(4, 4).state_dict()) == {f'generation.{i}.{p}' for i in (0, 2) for p in ('weight', 'bias')}
    assert MGDLoss(3, 4).align.weight.shape == (4, 3, 1, 1)


def test_errors():
    loss = MGDLoss(3, 4)
    with pytest.raises(ValueError, match=r'student must have 3 channels.*\(1, 4, 5, 5\)'):
        loss(torch.zeros(1, 4, 5, 5), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'agree in B, H and W.*\(1, 3, 5, 6\)'):
        loss(torch.zeros(1, 3, 5, 6), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'uniform must have shape \(1, 1, 5, 5\), found \(1, 4, 5, 5\)'):
        loss(torch.zeros(1, 3, 5, 5), torch.zeros(1, 4, 5, 5), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match="mask_type='spacial'.*Nearest: 'spatial'"):
        MGDLoss(3, 4, mask_type='spacial')
    with pytest.raises(ValueError, match='lambda_mgd=65'):
        MGDLoss(3, 4, lambda_mgd=65)
