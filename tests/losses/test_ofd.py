import pytest
import torch

from kd_det.losses.ofd import OFDLoss, margin_from_bn, measured_margin

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


def load(module, state):
    for name, parameter in module.named_parameters():
        parameter.data.copy_(state[name])
    assert len(state) == len(list(module.parameters()))


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('ofd'), TOL[dtype]
    loss = OFDLoss([5, 6], [7, 8], ref.hparams['loss_divisor'])
    load(loss, ref.under('param.'))
    loss.to(dtype)
    student = [ref(f'student.{i}', dtype).requires_grad_() for i in range(2)]
    teacher = [ref(f'teacher.{i}', dtype) for i in range(2)]
    bn_weight, bn_bias = ([ref(f'bn_{what}.{i}', dtype) for i in range(2)] for what in ('weight', 'bias'))
    for i in range(2):
        margin = margin_from_bn(bn_weight[i], bn_bias[i])
        close(margin, ref(f'margin.{i}').flatten(), tol, f'margin.{i}')
        part = loss.distance(loss.connector[i](student[i]), teacher[i], margin)
        close(part, ref(f'loss_sum.{i}'), tol, f'loss_sum.{i}')
    value = loss(student, teacher, bn_weight, bn_bias)
    value.backward()
    close(value, ref('loss'), tol, 'loss')
    for i in range(2):
        close(student[i].grad, ref(f'grad_student.{i}'), tol, f'grad_student.{i}')


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference_measured(reference, close, dtype):
    ref, tol = reference('ofd'), TOL[dtype]
    loss = OFDLoss([5], [7], reduction='mean')
    load(loss.connector[0], ref.under('seed.param.connector.'))
    loss.to(dtype)
    student, teacher = ref('student.0', dtype).requires_grad_(), ref('teacher.0', dtype)
    close(measured_margin(teacher), ref('seed.margin').flatten(), tol, 'margin')
    value = loss([student], [teacher])
    value.backward()
    close(value, ref('seed.loss'), tol, 'loss')
    close(student.grad, ref('seed.grad_student.0'), tol, 'grad_student')
    for name, parameter in loss.connector[0].named_parameters():
        close(parameter.grad, ref(f'seed.grad_param.connector.{name}'), tol, name)


def test_margin_is_the_mean_of_the_negative_part():
    torch.manual_seed(0)
    weight, bias = torch.tensor([1.0, -2.0, 0.5, 0.01]).double(), torch.tensor([0.3, 1.0, -2.0, 5.0]).double()
    draws = bias + weight * torch.randn(200_000, 4, dtype=torch.float64)
    expected = torch.stack([x[x < 0].mean() if (x < 0).any() else torch.tensor(-0.03).double() for x in draws.T])
    torch.testing.assert_close(margin_from_bn(weight, bias), expected, rtol=2e-2, atol=0)
    torch.testing.assert_close(measured_margin(draws.T[None, :3, :, None]), expected[:3], rtol=1e-9, atol=0)


def test_margin_without_spread_or_far_from_zero():
    margin = margin_from_bn(torch.tensor([0.0, 0.0, 0.0, 1e-3, 1e-3]), torch.tensor([2.0, -2.0, 0.0, -50.0, 50.0]))
    torch.testing.assert_close(margin, torch.tensor([0.0, -2.0, 0.0, -50.0, -3e-3]))
    assert measured_margin(torch.ones(1, 2, 3, 3)).tolist() == [0, 0]


def test_plain_formula():
    torch.manual_seed(1)
    loss = OFDLoss([2, 2], [3, 2], loss_divisor=10.0, loss_weight=2.0).double().eval()
    student, teacher = [torch.randn(2, 2, 2, 3).double() for _ in range(2)], []
    teacher = [torch.randn(2, c, 2, 3).double() for c in (3, 2)]
    total = 0.0
    for weight, conv, s, t in zip((0.5, 1.0), loss.connector, student, teacher):
        s = conv(s)
        for c in range(t.shape[1]):
            negative = t[:, c][t[:, c] < 0]
            for a, b in zip(s[:, c].flatten(), t[:, c].flatten()):
                b = max(b, negative.sum() / (len(negative) + 1e-6))
                total = total + weight * (a - b) ** 2 * (a > b or b > 0)
    torch.testing.assert_close(loss(student, teacher), 2 * total / 2 / 10)


def test_gradcheck_and_zero_below_the_margin():
    torch.manual_seed(2)
    loss = OFDLoss([2], [3]).double()
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: loss([s], [teacher]), (student,))
    assert loss([student], [loss.connector[0](student).detach().clamp(min=0) - 1e-9]) < 1e-15
    far_below = torch.full((1, 2, 2, 2), -9.0, requires_grad=True)
    value = loss.distance(far_below, -torch.rand(1, 2, 2, 2), torch.tensor([-0.5, -0.1]))
    value.backward()
    assert value == 0 and not far_below.grad.any()


def test_errors():
    loss, s, t = OFDLoss([3], [4]), torch.zeros(2, 3, 5, 6), torch.zeros(2, 4, 5, 6)
    with pytest.raises(ValueError, match=r'level 0: the student must have 3 channels.*\(2, 4, 5, 6\)'):
        loss([t], [t])
    with pytest.raises(ValueError, match='1 levels are expected, found 2'):
        loss([s, s], [t, t])
    with pytest.raises(ValueError, match='belong together'):
        loss([s], [t], bn_weight=[torch.ones(4)])
    with pytest.raises(ValueError, match=r'must have shape \(4,\), found \(3,\) and \(4,\)'):
        loss([s], [t], [torch.ones(3)], [torch.ones(4)])
    with pytest.raises(ValueError, match="reduction='means'.*Nearest: 'mean'"):
        OFDLoss([3], [4], reduction='means')
    with pytest.raises(ValueError, match=r'student_channels=\[3\], teacher_channels=\[4, 4\]'):
        OFDLoss([3], [4, 4])
