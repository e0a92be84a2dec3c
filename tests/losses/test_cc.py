import math

import pytest
import torch

from kd_det.losses.cc import CCLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}
VARIANTS = ['paper', 'repdistiller', 'listing']


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case, variant', [('paper.', 'paper'), ('', 'paper'), ('seed.', 'listing')])
def test_reference(reference, close, case, variant, dtype):
    ref, tol = reference('cc'), TOL[dtype]
    loss = CCLoss(variant, gamma=ref.hparams['gamma'], P_order=ref.hparams['P_order'])
    inputs = case if variant == 'listing' else ''
    student, teacher = ref(f'{inputs}student', dtype).requires_grad_(), ref(f'{inputs}teacher', dtype)
    value = loss(student, teacher)
    value.backward()
    close(value, ref(f'{case}loss'), tol, 'loss')
    close(student.grad, ref(f'{case}grad_student'), tol, 'grad_student')
    if variant == 'paper':
        close(loss.kernel(student), ref('paper.kernel_student'), tol, 'kernel')


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference_neighbours(reference, close, dtype):
    ref, tol = reference('cc'), TOL[dtype]
    loss = CCLoss('repdistiller', feat_dim=ref.hparams['feat_dim'], student_channels=32, teacher_channels=32)
    loss.load_state_dict(ref.under('repdistiller.param.'))
    loss.to(dtype)
    student = ref('student', dtype).requires_grad_()
    value = loss(student, ref('teacher', dtype))
    value.backward()
    close(value, ref('repdistiller.loss'), tol, 'loss')
    close(student.grad, ref('repdistiller.grad_student'), tol, 'grad_student')
    for name, parameter in loss.named_parameters():
        close(parameter.grad, ref(f'repdistiller.grad_param.{name}'), tol, name)


def test_kernel_tends_to_the_gaussian():
    torch.manual_seed(0)
    rows = torch.randn(6, 4, dtype=torch.float64)
    directions = rows / rows.norm(dim=1, keepdim=True)
    expected = torch.exp(-0.7 * torch.cdist(directions, directions).square())
    torch.testing.assert_close(CCLoss(gamma=0.7, P_order=25).kernel(rows), expected, rtol=1e-10, atol=0)


def make(variant):
    return CCLoss(variant, feat_dim=3, student_channels=4, teacher_channels=5).double()


@pytest.mark.parametrize('variant', VARIANTS)
def test_gradcheck_and_zero_at_equality(variant):
    torch.manual_seed(1)
    student = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, 5, dtype=torch.float64)
    loss = make(variant)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (student,))
    if variant == 'repdistiller':
        loss = CCLoss(variant, student_channels=4, teacher_channels=4).double()
        loss.embed_t.load_state_dict(loss.embed_s.state_dict())
        value = loss(student, student.detach())
    else:
        rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
        value = loss(student, 3 * student.detach() @ rotation)
    assert value < 1e-28 and torch.autograd.grad(value, student)[0].abs().max() < 1e-14


@pytest.mark.parametrize('rows', [0, 1, 2, 4])
@pytest.mark.parametrize('variant', VARIANTS)
def test_few_and_zero_rows(variant, rows):
    student, teacher = torch.randn(rows, 4).double(), torch.randn(rows, 5).double()
    student[2:3] = 0
    student.requires_grad_()
    loss = make(variant)
    value = loss(student, teacher)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all() and (value == 0) == (rows < 2)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in loss.parameters())
    silent = torch.zeros(rows, 4).double().requires_grad_()
    loss(silent, teacher).backward()
    assert torch.isfinite(silent.grad).all()


def test_neighbours_equal_slow_formula():
    student, teacher = torch.randn(4, 4).double(), torch.randn(4, 5).double()
    loss = make('repdistiller')
    e, f = loss.embed_s['linear'](student).tolist(), loss.embed_t['linear'](teacher).tolist()
    error = [[abs(a - b) for a, b in zip(i, j)] for i, j in zip(e, f)]
    expected = sum(error[i][c] * error[i - 1][c] for i in range(1, 4) for c in range(3)) / 3
    assert math.isclose(loss(student, teacher).item(), expected, rel_tol=1e-12)


def test_errors():
    with pytest.raises(ValueError, match=r'as many rows.*\(3, 4\).*\(2, 4\)'):
        CCLoss()(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r'rows of 4 numbers.*5 .*\(3, 4, 7, 7\).*\(3, 5\)'):
        make('repdistiller')(torch.zeros(3, 4, 7, 7), torch.zeros(3, 5))
    with pytest.raises(ValueError, match="variant='papper'.*Nearest: 'paper'"):
        CCLoss('papper')
    with pytest.raises(ValueError, match='needs student_channels'):
        CCLoss('repdistiller')
    with pytest.raises(ValueError, match='P_order=0'):
        CCLoss(P_order=0)
