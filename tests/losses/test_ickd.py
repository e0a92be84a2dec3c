import copy

import pytest
import torch

from kd_det.losses.ickd import ICKDLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}
THEIR_NAMES = {'conv': 'embed_s.conv2d', 'bn': 'embed_s.l2norm'}


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('ickd'), TOL[dtype]
    loss = ICKDLoss(6, 8)
    names = {name: f'{THEIR_NAMES[name.split(".")[1]]}.{name.split(".")[2]}' for name, _ in loss.named_parameters()}
    missing = loss.load_state_dict({ours: ref(f'param.{theirs}') for ours, theirs in names.items()}, strict=False)
    assert all('running' in key or 'tracked' in key for key in missing.missing_keys)
    loss.to(dtype)
    student, teacher = ref('student', dtype).requires_grad_(), ref('teacher', dtype)
    value = loss(student, teacher)
    value.backward()
    close(value, ref('loss'), tol, 'loss')
    close(student.grad, ref('grad_student'), tol, 'grad_student')
    for name, parameter in loss.named_parameters():
        close(parameter.grad, ref(f'grad_param.{names[name]}'), tol, name)


def test_plain_formula():
    torch.manual_seed(0)
    loss, student = ICKDLoss(3, 4, loss_weight=2.0).double().eval(), torch.randn(2, 3, 3, 5).double()
    teacher, total = torch.randn(2, 4, 3, 5).double(), 0.0
    for s, t in zip(loss.embed(student), teacher):
        for i in range(4):
            rows = [torch.stack([(x[i] * x[j]).sum() for j in range(4)]) for x in (s, t)]
            total = total + sum((rows[0] / rows[0].norm() - rows[1] / rows[1].norm()) ** 2)
    torch.testing.assert_close(loss(student, teacher), 2 * total / (2 * 4))


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('dtype, offset', [(torch.float64, 0.0), (torch.float32, 30.0)])
def test_products_are_those_of_the_embedded_map(training, dtype, offset):
    """In one go, without the map; running statistics follow as by batch norm itself."""
    torch.manual_seed(3)
    loss = ICKDLoss(5, 7).to(dtype)
    torch.nn.init.normal_(loss.embed.bn.weight)
    torch.nn.init.normal_(loss.embed.bn.bias)
    student = torch.randn(3, 5, 6, 9, dtype=dtype) + offset
    loss.embed(student)  # some statistics to start with
    loss.train(training)
    plain = copy.deepcopy(loss)
    maps = plain.embed(student).flatten(2)
    tol = dict(rtol=1e-10, atol=1e-10) if dtype == torch.float64 else dict(rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(loss.embedded_products(student), maps @ maps.transpose(1, 2), **tol)
    for ours, theirs in zip(loss.buffers(), plain.buffers()):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    loss = ICKDLoss(2, 3).double()
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (student, torch.randn(2, 3, 3, 4, dtype=torch.float64)))
    assert loss(student, 2 * loss.embed(student).detach()) < 1e-28


def test_dead_channel_and_one_value():
    torch.manual_seed(2)
    loss, student = ICKDLoss(3, 3), torch.randn(2, 3, 4, 4)
    teacher = torch.randn(2, 3, 4, 4)
    teacher[:, 1] = 0
    loss.embed.bn.weight.data[0] = 0
    student.requires_grad_()
    loss(student, teacher).backward()
    assert torch.isfinite(student.grad).all() and student.grad.any()
    one = torch.randn(1, 3, 1, 1, requires_grad=True)  # batch statistics of one value are none
    loss(one, torch.randn(1, 3, 1, 1)).backward()
    assert torch.isfinite(one.grad).all()


def test_errors():
    with pytest.raises(ValueError, match=r'student must have 3 channels.*\(1, 4, 5, 5\)'):
        ICKDLoss(3, 4)(torch.zeros(1, 4, 5, 5), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'agree in B, H and W.*\(1, 3, 5, 6\)'):
        ICKDLoss(3, 4)(torch.zeros(1, 3, 5, 6), torch.zeros(1, 4, 5, 5))


def test_a_channel_without_variance_stays_finite():
    """The variance is a difference of moments, which rounding must not make negative."""
    loss = ICKDLoss(16, 4)
    for seed in range(10):
        torch.manual_seed(seed)
        student = (torch.randn(2, 1, 12, 16) * 1000 + torch.randn(2, 16, 12, 16) * 1e-3).requires_grad_()
        with torch.no_grad():
            loss.embed.conv.weight -= loss.embed.conv.weight.mean(1, keepdim=True)
        value = loss(student, torch.randn(2, 4, 12, 16))
        value.backward()
        assert torch.isfinite(value) and torch.isfinite(student.grad).all()
        assert torch.isfinite(loss.embed.bn.running_var).all() and bool((loss.embed.bn.running_var >= 0).all())


def test_synchronised_norms_of_the_runner_leave_it_alone():
    loss = ICKDLoss(6, 4)
    names = set(loss.state_dict())
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(loss)
    assert not any(isinstance(m, torch.nn.SyncBatchNorm) for m in converted.modules())
    assert set(converted.state_dict()) == names >= {'embed.bn.running_var', 'embed.bn.num_batches_tracked'}
    assert torch.isfinite(converted(torch.randn(2, 6, 4, 4), torch.randn(2, 4, 4, 4)))
