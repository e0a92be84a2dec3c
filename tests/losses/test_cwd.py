import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from kd_det.losses import CWDLoss
from kd_det.losses._fused import position_divergence

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


def slow_loss(student, teacher, tau, inside):
    """One distribution at a time, over the cells (h, w) that lie inside each image."""
    total = 0.0
    for b, (h, w) in enumerate(inside):
        for c in range(student.shape[1]):
            s, t = (x[b, c, :h, :w].flatten() / tau for x in (student, teacher))
            p_s, p_t = (x.exp() / x.exp().sum() for x in (s, t))
            total = total + (p_t * (p_t / p_s).log()).sum()
    return tau**2 * total / (student.shape[0] * student.shape[1])


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('mask_padding', [True, False])
@pytest.mark.parametrize('tau', [1, 4])
def test_reference(reference, close, tau, mask_padding, dtype):
    ref, tol = reference('cwd'), TOL[dtype]
    loss = CWDLoss(tau=tau, loss_weight=ref.hparams['loss_weight'], mask_padding=mask_padding)
    student, teacher = ref('student', dtype).requires_grad_(), ref('teacher', dtype)
    for sizes in ({}, dict(image_sizes=[(96, 128)] * 2, batch_input_shape=(96, 128))):  # no padding: the same
        value = loss(student, teacher, **sizes)
        (gradient,) = torch.autograd.grad(value, student)
        close(value, ref(f'tau{tau}.loss'), tol, 'loss')
        close(gradient, ref(f'tau{tau}.grad_student'), tol, 'grad_student')


def test_padding_takes_no_part():
    torch.manual_seed(0)
    student = torch.randn(3, 2, 6, 8, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 2, 6, 8, dtype=torch.float64)
    sizes = dict(image_sizes=[(96, 128), (49, 100), (48, 1)], batch_input_shape=(96, 128))
    inside = [(6, 8), (4, 7), (3, 1)]  # cells of 16 pixels: a cell with one pixel of the image in it counts
    loss = CWDLoss(tau=2.0)
    value = loss(student, teacher, **sizes)
    torch.testing.assert_close(value, slow_loss(student, teacher, 2.0, inside), rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(value, student)
    outside = torch.ones(3, 1, 6, 8, dtype=torch.bool)
    for b, (h, w) in enumerate(inside):
        outside[b, :, :h, :w] = False
    assert not gradient[outside.expand_as(gradient)].any() and gradient[~outside.expand_as(gradient)].any()
    changed = torch.where(outside, teacher + 50, teacher)
    assert torch.equal(loss(student, changed, **sizes), value)
    whole = slow_loss(student, changed, 2.0, [(6, 8)] * 3)
    torch.testing.assert_close(CWDLoss(tau=2.0, mask_padding=False)(student, changed, **sizes), whole)
    assert abs(whole - value) > 0.1 * value


def test_huge_logits_stay_finite():
    student = torch.tensor([1e4, -1e4, 0.0, 0.0]).view(1, 1, 2, 2).requires_grad_()
    value = CWDLoss()(student, student.detach().flip(2))
    value.backward()
    assert math.isclose(value.item(), 1e4, rel_tol=1e-6) and torch.isfinite(student.grad).all()


@pytest.mark.parametrize('padded', [False, True])
def test_what_the_teacher_rules_out_counts_nothing(padded):
    generator = torch.Generator().manual_seed(2)
    student, teacher = torch.randn(2, 2, 3, 40, dtype=torch.float64, generator=generator).unbind()
    teacher[:, 0, ::3] = teacher[0, 2, 30] = -torch.inf
    student[0, 0, 0] = -torch.inf  # so does the student
    ignored = torch.zeros(2, 1, 40, dtype=torch.bool)
    ignored[1, 0, 25:] = padded
    for x in (student, teacher):
        x.requires_grad_()
    found = position_divergence(student, teacher, 2.0, ignored if padded else None)
    gradients = torch.autograd.grad(found.sum(), (student, teacher))
    inside = ~ignored.expand_as(teacher)
    counts = inside & teacher.isfinite()
    for b, c in itertools.product(range(2), range(3)):
        log_s = student[b, c].masked_fill(~inside[b, c], -torch.inf).div(2).log_softmax(0)[counts[b, c]]
        p_t = teacher[b, c, counts[b, c]].div(2).softmax(0)
        expected = F.kl_div(log_s, p_t, reduction='sum')
        torch.testing.assert_close(found[b, c], expected)
        for one, other in zip(gradients, torch.autograd.grad(expected, (student, teacher))):
            torch.testing.assert_close(one[b, c], other[b, c])


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    sizes = ([(48, 64), (30, 40)], (48, 64))
    assert torch.autograd.gradcheck(lambda s: CWDLoss(tau=1.5)(s, teacher, *sizes), (student,))
    for inputs in ((), sizes):
        value = CWDLoss(tau=1.5)(student, student.detach() + 3, *inputs)  # a constant shifts nothing
        assert abs(value) < 1e-14
        assert torch.autograd.grad(value, student)[0].abs().max() < 1e-14


def test_errors():
    with pytest.raises(ValueError, match=r'same number of channels.*\(1, 3, 5, 5\).*\(1, 4, 5, 5\)'):
        CWDLoss()(torch.zeros(1, 3, 5, 5), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'agree in B, H and W'):
        CWDLoss()(torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 4, 5))
    with pytest.raises(ValueError, match=r'image_sizes.*each of 1 images, found 2'):
        CWDLoss()(torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 5, 5), [(5, 5)] * 2, (8, 8))
