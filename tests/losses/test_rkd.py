import pytest
import torch
from reference_formulas.rkd import formula

from kd_det.losses.rkd import RKDLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['', 'fmap.', 'dup.'])
def test_reference(reference, close, case, dtype):
    ref, tol = reference('rkd'), TOL[dtype]
    w_d, w_a = ref.hparams['w_d'], ref.hparams['w_a']
    teacher = ref(f'{case}teacher', dtype)
    for part, weights in (('', (w_d, w_a)), ('.distance', (1.0, 0.0)), ('.angle', (0.0, 1.0))):
        student = ref(f'{case}student', dtype).requires_grad_()
        value = RKDLoss(*weights, bound_gradient=case != 'dup.', eps=ref.hparams['eps'])(student, teacher)
        value.backward()
        close(value, ref(f'{case}loss{part}'), tol, f'loss{part}')
        close(student.grad, ref(f'{case}grad_student{part}'), tol, f'grad_student{part}')


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference_l2_norm(reference, close, dtype):
    ref, tol = reference('rkd'), TOL[dtype]
    for part, weights in (('distance', (1.0, 0.0)), ('angle', (0.0, 1.0))):
        value = RKDLoss(*weights, l2_norm=True)(ref('student', dtype), ref('teacher', dtype))
        close(value, ref(f'loss.mmrazor_l2norm_{part}'), tol, part)


def test_rows_that_lie_near_each_other(close):
    torch.manual_seed(0)
    student = (100 + 1e-2 * torch.randn(20, 64)).double()  # scalar products lose all digits of these in float32
    student = student.float().double()
    teacher = torch.randn(20, 32).double()
    expected = RKDLoss()(student, teacher)
    diff = student[:, None] - student
    plain = diff.square().sum(-1).sqrt()
    far = (teacher[:, None] - teacher).square().sum(-1).sqrt()
    distance = torch.nn.functional.smooth_l1_loss(plain / plain.sum() * 380, far / far.sum() * 380)
    torch.testing.assert_close(RKDLoss(1.0, 0.0)(student, teacher), distance)
    close(RKDLoss()(student.float(), teacher.float()), expected, 1e-4, 'float32')


def near(distance, times=2):
    """Groups of rows that lie near each other, the groups far apart."""
    return torch.randn(16 // times, 64).repeat_interleave(times, 0) * (1 + distance * torch.randn(16, 64))


def one_far_away(size):
    rows = 1e-2 * torch.randn(16, 64)
    rows[0] = size
    return rows


def one_bit_apart():
    rows = torch.randn(16, 64)
    rows[1] = rows[0]
    rows[1, 5] = torch.nextafter(rows[0, 5], torch.tensor(torch.inf))
    return rows


@pytest.mark.parametrize('part', ['distance', 'angle'])
@pytest.mark.parametrize(
    'make, args',
    [
        (near, (1e-6,)),
        (near, (3e-7,)),
        (near, (1e-6, 4)),
        (near, (3e-7, 4)),
        (one_far_away, (1e4,)),
        (one_far_away, (1e6,)),
        (one_bit_apart, ()),
    ],
)
def test_single_precision_loses_nothing(close, make, args, part):
    """Value and gradient of float32 rows are those of the differences, in double precision."""
    torch.manual_seed(0)
    student, teacher = make(*args), torch.randn(16, 32)
    weights = dict(w_d=1.0, w_a=0.0) if part == 'distance' else dict(w_d=0.0, w_a=1.0)
    found, expected = student.requires_grad_(), student.detach().double().requires_grad_()
    value, plain = RKDLoss(**weights)(found, teacher), formula(expected, teacher.double(), **weights)
    value.backward()
    plain.backward()
    close(value, plain, 1e-6, 'loss')
    for one, other in zip(found.grad, expected.grad):  # row by row: those that lie near each other have the largest
        close(one, other, 1e-5, 'gradient')


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    student = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: RKDLoss(1.0, 2.0)(s, teacher), (student,))
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    value = RKDLoss()(student, 3 * student.detach() @ rotation + 7)  # a similarity changes neither
    (gradient,) = torch.autograd.grad(value, student)
    assert value < 1e-26 and gradient.abs().max() < 1e-13


@pytest.mark.parametrize('rows', [0, 1, 2, 3])
def test_few_rows(rows):
    student = torch.randn(rows, 4, requires_grad=True)
    value = RKDLoss()(student, torch.randn(rows, 3))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all() and (value == 0) == (rows < 3)


def test_equal_rows_are_safe(reference, close):
    ref = reference('rkd')
    student = ref('dup.student').requires_grad_()
    value = RKDLoss(ref.hparams['w_d'], ref.hparams['w_a'])(student, ref('dup.teacher'))
    value.backward()
    close(value, ref('dup.loss'), 1e-9, 'loss')
    equal = ((student[:, None] == student).all(-1).sum(1) > 1).nonzero().flatten()
    others = [i for i in range(len(student)) if i not in equal]
    assert len(equal) == 2
    close(student.grad[others], ref('dup.grad_student')[others], 1e-9, 'rows that are not equal')
    assert ref('dup.grad_student')[equal].abs().max() > 1e9 and student.grad[equal].abs().max() < 10

    teacher = torch.randn(6, 3, dtype=torch.float64)
    student = torch.randn(6, 4, dtype=torch.float64)
    student[1] = student[0]  # equal in the student only
    for rows in (student, torch.ones(6, 4, dtype=torch.float64)):
        rows.requires_grad_()
        value = RKDLoss()(rows, teacher)
        value.backward()
        assert torch.isfinite(value) and rows.grad.abs().max() < 1e3


def test_angles_are_sampled():
    torch.manual_seed(2)
    student, teacher = torch.randn(40, 8), torch.randn(40, 8)
    whole = RKDLoss(0.0, 1.0)(student, teacher)
    few = RKDLoss(0.0, 1.0, max_angle_rows=20)
    drawn = torch.stack([few(student, teacher) for _ in range(20)])
    assert drawn.std() > 0 and abs(drawn.mean() / whole - 1) < 0.15
    torch.manual_seed(3)
    rows = torch.randperm(40)[:20]
    torch.manual_seed(3)
    torch.testing.assert_close(few(student, teacher), RKDLoss(0.0, 1.0)(student[rows], teacher[rows]))


def test_no_large_intermediates():
    rows, width = 48, 2048
    student, teacher = torch.randn(rows, width, requires_grad=True), torch.randn(rows, width)
    saved = []

    def keep(tensor):
        saved.append(tensor.untyped_storage())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        RKDLoss()(student, teacher)
    kept = sum({storage.data_ptr(): storage.nbytes() for storage in saved}.values())
    assert kept < 6 * rows * width * 4 + 20 * rows * rows * 4


def test_errors():
    with pytest.raises(ValueError, match=r'as many rows.*\(3, 4\).*\(2, 4\)'):
        RKDLoss()(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match='max_angle_rows=2'):
        RKDLoss(max_angle_rows=2)
