import pytest
import torch

from kd_det.losses.ld import LDLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}
HPARAMS = ('reg_max', 'ld_T', 'ld_weight', 'vlr_T', 'vlr_weight', 'kd_T', 'kd_weight')


def flatten(maps):
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('as_rows', [False, True])
def test_reference(reference, close, as_rows, dtype):
    ref, tol = reference('ld'), TOL[dtype]
    loss = LDLoss(**{key: ref.hparams[key] for key in HPARAMS})
    student, cls_student = ref('student', dtype).requires_grad_(), ref('cls_student', dtype).requires_grad_()
    maps = [student, ref('teacher', dtype), cls_student, ref('cls_teacher', dtype)]
    s, t, cls_s, cls_t = [flatten(x) for x in maps] if as_rows else maps
    pos, vlr, value = ref('pos_inds'), ref('vlr_inds'), ref('vlr_weight', dtype)
    found = loss(s, t, pos, vlr, value, cls_s, cls_t)
    assert set(found) == {'ld', 'ld_vlr', 'kd'}
    for name, part in found.items():
        close(part, ref(f'loss.{name}'), tol, name)
    total = sum(found.values())
    total.backward()
    close(total, ref('loss'), tol, 'loss')
    close(student.grad, ref('grad_student'), tol, 'grad_student')
    close(cls_student.grad, ref('grad_cls_student'), tol, 'grad_cls_student')
    close(flatten(cls_student)[pos].sigmoid().amax(1), ref('pos_weight'), tol, 'pos_weight')
    plain = loss(s, t, pos)['ld'] / loss.ld_weight / len(pos)  # without class logits all weigh 1
    close(plain, ref('loss.ld_plain_mean'), tol, 'ld_plain_mean')


def test_defaults_are_the_published_ones(reference):
    ref, loss = reference('ld'), LDLoss()
    assert all(getattr(loss, key) == ref.hparams[key] for key in HPARAMS)


def test_plain_formula():
    torch.manual_seed(0)
    loss = LDLoss(reg_max=2, ld_T=3.0, ld_weight=0.5, vlr_T=2.0, vlr_weight=0.7, loss_weight=5.0)
    student, teacher, value = torch.randn(6, 12).double(), torch.randn(6, 12).double(), torch.rand(2).double()
    pos, vlr, cls = torch.tensor([0, 4]), torch.tensor([1, 3]), torch.randn(6, 1).double()

    def one(row, T):
        total = 0.0
        for side in range(4):
            s, t = (x[row, 3 * side : 3 * side + 3] / T for x in (student, teacher))
            p_s, p_t = (x.exp() / x.exp().sum() for x in (s, t))
            total = total + T**2 * (p_t * (p_t / p_s).log()).mean()
        return total

    found = loss(student, teacher, pos, vlr, value, cls, cls + 3)
    expected = 5 * 0.5 / 4 * sum(cls[i, 0].sigmoid() * one(i, 3) for i in (0, 4))
    torch.testing.assert_close(found['ld'], expected)
    torch.testing.assert_close(found['ld_vlr'], 5 * 0.7 / 16 * (value[0] * one(1, 2) + value[1] * one(3, 2)))
    assert found['kd'] == 0  # one class has no soft-max


def test_avg_factor_divides_the_sums_alone():
    torch.manual_seed(0)
    student, teacher, cls = torch.randn(6, 12), torch.randn(6, 12), torch.randn(6, 4)
    pos, vlr = torch.tensor([0, 4]), torch.tensor([1, 3])
    published, found = (
        LDLoss(reg_max=2)(student, teacher, pos, vlr, torch.ones(2), cls, cls.flip(1), avg_factor=factor)
        for factor in (None, torch.tensor(5.0))
    )
    torch.testing.assert_close(found['ld'] * 5, published['ld'])
    torch.testing.assert_close(found['ld_vlr'] * 5, published['ld_vlr'])
    assert found['kd'] == published['kd'] > 0  # a mean already


def test_no_anchors():
    student, cls = torch.randn(2, 68, 3, 4, requires_grad=True), torch.randn(2, 5, 3, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.long)
    found = LDLoss()(student, torch.randn(2, 68, 3, 4), none, none, torch.zeros(0), cls, torch.randn(2, 5, 3, 4))
    total = sum(found.values())
    total.backward()
    assert total == 0 and not student.grad.any() and not cls.grad.any()


def test_one_anchor_and_huge_logits():
    student = torch.full((1, 68, 1, 1), -1e4)
    student[:, 5] = 1e4
    cls = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1).requires_grad_()
    student.requires_grad_()
    first = torch.tensor([0])
    found = LDLoss()(student, student.detach().flip(1), first, first, None, cls, cls.detach().flip(1))
    sum(found.values()).backward()
    assert all(torch.isfinite(v) and v > 0 for v in found.values())
    assert torch.isfinite(student.grad).all() and torch.isfinite(cls.grad).all()


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(1)
    loss, pos, vlr = LDLoss(reg_max=2), torch.tensor([0, 7]), torch.tensor([3])
    student = torch.randn(2, 12, 2, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 12, 2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: sum(loss(s, teacher, pos, vlr).values()), (student,))
    assert abs(sum(loss(student, student, pos, vlr, None, student, student).values())) < 1e-14


def test_errors():
    loss, maps, inds = LDLoss(reg_max=2), torch.zeros(1, 12, 2, 2), torch.tensor([0])
    with pytest.raises(ValueError, match=r'12 channels.*\(1, 8, 2, 2\) and \(1, 8, 2, 2\)'):
        loss(maps[:, :8], maps[:, :8], inds)
    with pytest.raises(ValueError, match=r'same shape.*\(1, 12, 2, 2\) and \(1, 12, 2, 1\)'):
        loss(maps, maps[..., :1], inds)
    with pytest.raises(ValueError, match=r'cls_student \(1, 3, 1, 2\) must cover the anchors'):
        loss(maps, maps, inds, cls_student=torch.zeros(1, 3, 1, 2))
    with pytest.raises(ValueError, match='without cls_student'):
        loss(maps, maps, inds, cls_teacher=maps)
    with pytest.raises(ValueError, match=r'vlr_value \(2,\) and vlr_inds \(1,\)'):
        loss(maps, maps, inds, inds, torch.ones(2))
    with pytest.raises(ValueError, match=r'pos_inds must have shape \(number,\), found \(1, 1\)'):
        loss(maps, maps, inds[None])


def test_learnt_temperatures_of_parts_that_are_not_given_get_a_gradient():
    """Of zero: DDP counts parameters without one."""
    learnt = dict(type='kd_det.CurriculumTemperature')
    loss = LDLoss(reg_max=3, ld_T=learnt, vlr_T=learnt, kd_T=learnt)
    loss(torch.randn(5, 16, requires_grad=True), torch.randn(5, 16), torch.tensor([0, 3]))['ld'].backward()
    assert loss.vlr_T.global_T.grad == 0 == loss.kd_T.global_T.grad
    assert loss.ld_T.global_T.grad != 0
