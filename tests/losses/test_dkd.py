import pytest
import torch

from kd_det.losses.dkd import DKDLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('dkd'), TOL[dtype]
    loss = DKDLoss(*(ref.hparams[name] for name in ('alpha', 'beta', 'temperature')))
    student, teacher, labels = ref('student', dtype).requires_grad_(), ref('teacher', dtype), ref('target')
    value = loss(student, teacher, labels)
    value.backward()
    close(value, ref('loss'), tol, 'loss')
    close(value, ref('loss.mmrazor_batchmean'), tol, 'mmrazor')
    close(loss(student, teacher, labels, avg_factor=1.0), ref('loss.mmrazor_sum'), tol, 'sum')
    close(student.grad, ref('grad_student'), tol, 'grad_student')
    for part, name in zip(loss.parts(student, teacher, labels), ('tckd', 'nckd')):
        close(part, ref(f'loss.{name}'), tol, name)


@pytest.mark.parametrize('dtype', list(TOL))
def test_standardised_reference(reference, close, dtype):
    ref, tol = reference('logit_std'), TOL[dtype]
    loss = DKDLoss(1.0, 8.0, ref.hparams['temperature'], standardize=True)
    student = ref('student', dtype).requires_grad_()
    value = loss(student, ref('teacher', dtype), ref('target'))
    value.backward()
    close(value, ref('dkd.loss'), tol, 'loss')
    close(student.grad, ref('dkd.grad_student'), tol, 'grad_student')


def test_target_far_above_the_rest_stays_finite(reference):
    ref = reference('dkd')
    student, labels = ref('student').clone(), ref('target')
    student[torch.arange(10), labels] += 3000
    student.requires_grad_()
    value = DKDLoss(1.0, 8.0, 4.0)(student, ref('teacher'), labels)
    value.backward()
    assert 1e3 < value < 1e5 and torch.isfinite(student.grad).all()


def test_the_parts_with_equal_weights_of_the_rest_make_up_soft_targets():
    """KL = TCKD + (1 - q_y) NCKD: the paper's own decomposition, for rows of one confidence."""
    torch.manual_seed(0)
    student = torch.randn(8, 5, dtype=torch.float64)
    teacher = torch.randn(5, dtype=torch.float64)[torch.stack([torch.randperm(5) for _ in range(8)])]
    labels = (teacher == teacher[0, 2]).long().argmax(1)
    q = teacher.softmax(1)
    beta = 1 - q[0, labels[0]].item()
    plain = (q * (q.log() - student.log_softmax(1))).sum() / 8
    torch.testing.assert_close(DKDLoss(1.0, beta, 1.0)(student, teacher, labels), plain)


def test_rows_that_count():
    torch.manual_seed(1)
    student, teacher = torch.randn(8, 4), torch.randn(8, 4)
    labels = torch.tensor([0, 3, -1, 4, 2, 1, 3, 0])
    weights = torch.tensor([1.0, 1, 1, 1, 1, 0, 1, 1])
    for foreground_only, rows in ((False, [0, 1, 4, 6, 7]), (True, [0, 4, 7])):
        loss = DKDLoss(foreground_only=foreground_only)
        expected = DKDLoss()(student[rows], teacher[rows], labels[rows])
        torch.testing.assert_close(loss(student, teacher, labels, weights), expected)
        found = loss(student, teacher, labels, weights, avg_factor=10.0)
        torch.testing.assert_close(found, expected if foreground_only else expected * 5 / 10)
    assert DKDLoss()(student, teacher, torch.full((8,), 4)) == 0


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(2)
    student = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    teacher, labels = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4])
    for standardize in (False, True):
        loss = DKDLoss(1.0, 2.0, 1.5, standardize)
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, teacher, labels), (student,))
        value = loss(student, student.detach() if standardize else student.detach() + 2, labels)
        assert abs(value) < 1e-14 and torch.autograd.grad(value, student)[0].abs().max() < 1e-14


@pytest.mark.parametrize('shape', [(0, 4), (3, 1), (3, 2), (1, 3), (0, 1)])
def test_few_rows_and_columns(shape):
    student, teacher = torch.randn(shape, requires_grad=True), torch.randn(shape)
    loss, labels = DKDLoss(), torch.zeros(shape[0], dtype=torch.long)
    tckd, nckd = loss.parts(student, teacher, labels)
    loss(student, teacher, labels).backward()
    assert torch.isfinite(tckd) and torch.isfinite(student.grad).all()
    assert (nckd == 0) == (shape[0] == 0 or shape[1] < 3) and (tckd == 0) == (shape[0] == 0 or shape[1] < 2)


def test_dense_rows():
    torch.manual_seed(3)
    student, teacher = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5)
    labels = torch.randint(0, 5, (2, 3, 5))
    rows = [x.permute(0, 2, 3, 1).reshape(-1, 4) for x in (student, teacher)]
    torch.testing.assert_close(DKDLoss()(student, teacher, labels), DKDLoss()(*rows, labels.flatten()))


def test_errors():
    with pytest.raises(ValueError, match=r'equal shape.*\(3, 4\).*\(3, 5\).*labels \(3,\)'):
        DKDLoss()(torch.zeros(3, 4), torch.zeros(3, 5), torch.zeros(3))
    with pytest.raises(ValueError, match=r'labels must have shape \(3,\)'):
        DKDLoss()(torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(4))
    with pytest.raises(ValueError, match='temperature=0'):
        DKDLoss(temperature=0)
