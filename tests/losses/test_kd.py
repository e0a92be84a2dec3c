import pytest
import torch

from kd_det.losses.kd import KDLoss
from kd_det.losses.temperature import CurriculumTemperature, standardise

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['', 'dense.', 'extreme.'])
def test_reference(reference, close, case, dtype):
    ref, tol = reference('kd'), TOL[dtype]
    loss = KDLoss(T=ref.hparams['dense_T' if case == 'dense.' else 'T'])
    student, teacher = ref(f'{case}student', dtype).requires_grad_(), ref(f'{case}teacher', dtype)
    value = loss(student, teacher)
    value.backward()
    close(value, ref(f'{case}loss'), tol, 'loss')
    close(student.grad, ref(f'{case}grad_student'), tol, 'grad_student')
    if not case:
        for other in ('seed_kldiv', 'mmrazor_batchmean'):
            close(value, ref(f'loss.{other}'), tol, other)
    if case == 'dense.':  # the other reductions differ by factors only
        batch, columns, height, width = student.shape
        close(value * height * width, ref('dense.loss.mmrazor_batchmean'), tol)
        close(value / columns, ref('dense.loss.mmrazor_mean'), tol)
        close(loss(student, teacher, avg_factor=1.0), ref('dense.loss.mmrazor_sum'), tol)


@pytest.mark.parametrize('dtype', list(TOL))
def test_standardised_reference(reference, close, dtype):
    ref, tol = reference('logit_std'), TOL[dtype]
    student, teacher = ref('student', dtype).requires_grad_(), ref('teacher', dtype)
    loss = KDLoss(T=ref.hparams['temperature'], standardize=True)
    value = loss(student, teacher)
    value.backward()
    close(value, ref('loss'), tol, 'loss')
    close(student.grad, ref('grad_student'), tol, 'grad_student')
    close(standardise(student, ref.hparams['eps']), ref('student_normalised'), tol, 'student_normalised')
    weighted = KDLoss(T=ref.hparams['temperature'], standardize=True, loss_weight=ref.hparams['kd_weight'])
    close(weighted(student, teacher), ref('loss.weighted'), tol, 'weighted')
    plain = KDLoss(T=ref.hparams['temperature'])
    close(plain(student, teacher), ref('loss.without_standardisation'), tol, 'plain')


def test_standardise_keeps_shape_only():
    torch.manual_seed(0)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(standardise, (logits,))
    torch.testing.assert_close(standardise(3 * logits + 7), standardise(logits), rtol=1e-6, atol=0)
    for rows in (torch.zeros(3, 5), torch.full((3, 1), 4.0), torch.zeros(0, 5), torch.full((2, 4), 1e6)):
        rows.requires_grad_()
        value = standardise(rows)
        (value * 2).sum().backward()
        assert not value.any() and torch.isfinite(rows.grad).all()


@pytest.mark.parametrize('dtype', list(TOL))
def test_curriculum_reference(reference, close, dtype):
    ref, tol = reference('ctkd'), TOL[dtype]
    hp = ref.hparams
    names = ('t_start', 't_end', 'theta', 'decay_max', 'decay_min', 'decay_loops')
    loss = KDLoss(T=dict(type='kd_det.CurriculumTemperature', **{name: hp[name] for name in names})).to(dtype)
    close(loss.T.global_T, ref('param.global_T_init'), tol, 'start')
    loss.load_state_dict({'T.global_T': ref('param.global_T')})
    for epoch in ref('epochs').tolist():
        loss.T.set_epoch(epoch)
        loss.zero_grad()
        student = ref('student', dtype).requires_grad_()
        value = loss(student, ref('teacher', dtype))
        value.backward()
        assert abs(loss.T.strength() - ref(f'epoch{epoch}.lambda').item()) < 1e-12
        close(loss.T()[None], ref(f'epoch{epoch}.temperature'), tol, 'temperature')
        close(value, ref(f'epoch{epoch}.loss'), tol, 'loss')
        close(student.grad, ref(f'epoch{epoch}.grad_student'), tol, 'grad_student')
        theta = 1e-9 if dtype == torch.float64 else 1e-2
        close(loss.T.global_T.grad, ref(f'epoch{epoch}.grad_param.global_T'), theta, 'grad of theta')
        close(loss.T.global_T.grad / loss.T.strength(), ref('grad_theta_plain'), theta, 'plain grad of theta')


def test_curriculum_schedule(reference):
    ref = reference('ctkd')
    for decay in ('cosine', 'linear'):
        temperature = CurriculumTemperature(decay=decay)
        for epoch, expected in zip(ref('schedule.epoch').tolist(), ref(f'schedule.{decay}').tolist()):
            if decay == 'linear' and epoch >= temperature.decay_loops:
                expected = -1.0  # the published one stays at -0.9
            assert abs(temperature.strength(epoch) - expected) < 1e-12


def test_curriculum_raises_the_loss():
    torch.manual_seed(1)
    student, teacher = torch.randn(8, 5), torch.randn(8, 5)
    loss = KDLoss(T=CurriculumTemperature(theta=-2.0))
    loss.T.set_epoch(10)
    before = loss(student, teacher)
    before.backward()
    with torch.no_grad():
        loss.T.global_T -= 0.1 * loss.T.global_T.grad
    assert loss(student, teacher) > before


def test_sigmoid_equals_plain_formula():
    torch.manual_seed(2)
    student, teacher = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    weights = torch.tensor([0, 1, 1, 0.5, 2, 0, 1, 1, 1], dtype=torch.float64)
    p, q = (teacher / 3).sigmoid(), (student / 3).sigmoid()
    rows = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1)
    loss = KDLoss(T=3.0, use_sigmoid=True)
    scores = teacher.sigmoid().max(1).values
    torch.testing.assert_close(loss(student, teacher), 9 * rows.sum() / scores.sum().clamp(min=1))
    expected = 9 * (rows * weights).sum() / (scores * weights).sum().clamp(min=1)
    torch.testing.assert_close(loss(student, teacher, weights), expected)
    torch.testing.assert_close(loss(student, teacher, weights, 2.5), 9 * (rows * weights).sum() / 2.5)


def test_row_weights():
    torch.manual_seed(3)
    student, teacher = torch.randn(6, 4), torch.randn(6, 4)
    weights = torch.tensor([0, 1, 1, 0, 1, 0.0])
    student.requires_grad_()
    value = KDLoss()(student, teacher, weights)
    value.backward()
    torch.testing.assert_close(value, KDLoss()(student[weights > 0], teacher[weights > 0]))
    assert not student.grad[[0, 3, 5]].any()
    dense = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    mask = (torch.rand(2, 4, 5) > 0.5).float()
    rows = [x.permute(0, 2, 3, 1)[mask > 0] for x in dense]
    torch.testing.assert_close(KDLoss()(*dense, mask), KDLoss()(*rows))


@pytest.mark.parametrize('sigmoid', [False, True])
def test_gradcheck_and_zero_at_equality(sigmoid):
    torch.manual_seed(4)
    student = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(5, 4, dtype=torch.float64)
    for standardize in (False, True):
        loss = KDLoss(2.0, sigmoid, standardize)
        assert torch.autograd.gradcheck(lambda s, loss=loss: loss(s, teacher), (student,))
        value = loss(student, student.detach())
        assert abs(value) < 1e-14 and torch.autograd.grad(value, student)[0].abs().max() < 1e-14


@pytest.mark.parametrize('shape', [(0, 4), (3, 1), (1, 2), (0, 4, 3, 3)])
@pytest.mark.parametrize('sigmoid', [False, True])
@pytest.mark.parametrize('standardize', [False, True])
def test_few_rows_and_columns(shape, sigmoid, standardize):
    student = torch.randn(shape, requires_grad=True)
    value = KDLoss(2.0, sigmoid, standardize)(student, torch.randn(shape))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()
    if 0 in shape or (shape[1] == 1 and not sigmoid):
        assert value == 0


def test_errors():
    with pytest.raises(ValueError, match=r'equal shape.*\(3, 4\).*\(3, 5\)'):
        KDLoss()(torch.zeros(3, 4), torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r'label_weights must have shape \(3,\).*\(4,\)'):
        KDLoss()(torch.zeros(3, 4), torch.zeros(3, 4), torch.ones(4))
    with pytest.raises(ValueError, match=r'T=0, expected a temperature above 0'):
        KDLoss(T=0)
    with pytest.raises(ValueError, match='decay_max=0.5'):
        CurriculumTemperature(decay_max=0.5)
    with pytest.raises(ValueError, match="decay='cosin'.*Nearest: 'cosine'"):
        CurriculumTemperature(decay='cosin')
