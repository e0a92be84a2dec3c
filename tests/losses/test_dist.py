import pytest
import torch

from kd_det.losses.dist import DISTLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['', 'dense.'])
def test_reference(reference, close, case, dtype):
    ref, tol = reference('dist'), TOL[dtype]
    loss = DISTLoss(*(ref.hparams[name] for name in ('beta', 'gamma', 'tau')), eps=ref.hparams['eps'])
    student, teacher = ref(f'{case}student', dtype).requires_grad_(), ref(f'{case}teacher', dtype)
    value = loss(student, teacher)
    value.backward()
    close(value, ref(f'{case}loss'), tol, 'loss')
    close(student.grad, ref(f'{case}grad_student'), tol, 'grad_student')
    if not case:
        inter, intra = loss.parts(student, teacher)
        close(inter, ref('loss.inter'), tol, 'inter')
        close(intra, ref('loss.intra'), tol, 'intra')


def slow_loss(student, teacher, tau, beta, gamma):
    p, q = (student / tau).softmax(1), (teacher / tau).softmax(1)
    rows = [torch.corrcoef(torch.stack((a, b)))[0, 1] for a, b in zip(p, q)]
    columns = [torch.corrcoef(torch.stack((a, b)))[0, 1] for a, b in zip(p.T, q.T)]
    return tau**2 * (beta * (1 - sum(rows) / len(rows)) + gamma * (1 - sum(columns) / len(columns)))


def test_rows_that_count():
    torch.manual_seed(0)
    student, teacher = torch.randn(12, 5, dtype=torch.float64), torch.randn(12, 5, dtype=torch.float64)
    labels = torch.tensor([0, 4, -1, 5, 2, 3, 1, 4, 0, 2, 2, 9])
    label_weights = torch.tensor([1.0] * 10 + [0.0, 1.0])
    loss = DISTLoss(0.7, 1.3, 2.0)
    torch.testing.assert_close(loss(student, teacher), slow_loss(student, teacher, 2.0, 0.7, 1.3), rtol=1e-6, atol=0)
    for foreground_only, rows in ((False, [0, 1, 4, 5, 6, 7, 8, 9]), (True, [0, 4, 5, 6, 8, 9])):
        loss.foreground_only = foreground_only
        found = loss(student, teacher, labels, label_weights)
        expected = slow_loss(student[rows], teacher[rows], 2.0, 0.7, 1.3)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    twice = torch.tensor([2.0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 3])
    again = torch.repeat_interleave(torch.arange(12), twice.long())
    found = loss(student, teacher, label_weights=twice)
    torch.testing.assert_close(found, slow_loss(student[again], teacher[again], 2.0, 0.7, 1.3), rtol=1e-6, atol=0)


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    student = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(6, 4, dtype=torch.float64)
    weights = torch.tensor([1, 0, 1, 0.5, 1, 2.0])
    for standardize in (False, True):
        loss = DISTLoss(1.0, 2.0, 1.5, standardize)
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, teacher, None, weights), (student,))
        assert loss(student, student.detach()).abs() < 1e-4  # eps keeps a correlation below 1
        assert DISTLoss(1.0, 2.0, 1.5, standardize, eps=0.0)(student, student.detach()).abs() < 1e-12


def test_few_rows_and_columns():
    for shape, kept in (((0, 4), 0), ((1, 4), 1), ((2, 4), 1), ((3, 4), 0), ((5, 1), 5), ((5, 2), 5), ((2, 3), 2)):
        student = torch.randn(shape, requires_grad=True)
        labels = torch.where(torch.arange(shape[0]) < kept, 0, -1)
        for asked in ({}, dict(labels=labels)):
            value = DISTLoss()(student, torch.randn(shape), **asked)
            (gradient,) = torch.autograd.grad(value, student)
            assert torch.isfinite(value) and torch.isfinite(gradient).all()
            if shape[0] < 2 or (asked and kept < 2):
                assert value == 0 and not gradient.any()
    student = torch.randn(20, 2, dtype=torch.float64, requires_grad=True)
    inter, intra = DISTLoss(eps=0.0).parts(student, torch.randn(20, 2, dtype=torch.float64))
    assert torch.autograd.grad(inter, student, retain_graph=True)[0].abs().max() < 1e-9  # two classes say nothing
    assert torch.autograd.grad(intra, student)[0].abs().max() > 1e-3


def test_huge_logits_stay_finite():
    student = (torch.eye(5) * 1e4).requires_grad_()
    value = DISTLoss()(student, torch.eye(5).flip(0) * 1e4)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()


def test_errors():
    with pytest.raises(ValueError, match=r'equal shape.*\(3, 4\).*\(2, 4\)'):
        DISTLoss()(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r'labels must have shape \(3,\)'):
        DISTLoss()(torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(2))
    with pytest.raises(ValueError, match='tau=-1'):
        DISTLoss(tau=-1)
