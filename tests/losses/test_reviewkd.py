import pytest
import torch
import torch.nn.functional as F

from kd_det.losses.reviewkd import ReviewKDLoss, hcl

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('reviewkd'), TOL[dtype]
    loss = ReviewKDLoss([5] * 3, [6] * 3, ref.hparams['mid_channel'], ref.hparams['pool_sizes'])
    state = ref.under('param.')
    assert set(state) == {name for name, _ in loss.named_parameters()}
    loss.load_state_dict(state, strict=False)
    loss.to(dtype)
    student = [ref(f'student.{i}', dtype).requires_grad_() for i in range(3)]
    teacher = [ref(f'teacher.{i}', dtype) for i in range(3)]
    for i, fused in enumerate(loss.fuse(student)):
        close(fused, ref(f'fused.{i}'), tol, f'fused.{i}')
        close(hcl(fused, teacher[i]), ref(f'loss.{i}'), tol, f'loss.{i}')
    value = loss(student, teacher)
    value.backward()
    close(value, ref('loss'), tol, 'loss')
    for i in range(3):
        close(student[i].grad, ref(f'grad_student.{i}'), tol, f'grad_student.{i}')
    assert all(p.grad.any() for p in loss.parameters())


@pytest.mark.parametrize('dtype', list(TOL))
@pytest.mark.parametrize('case', ['hcl2.', 'hcl4.', 'hcl9.'])
def test_reference_hcl(reference, close, case, dtype):
    ref = reference('reviewkd')
    student = ref(f'{case}student', dtype).requires_grad_()
    value = hcl(student, ref(f'{case}teacher', dtype))
    value.backward()
    close(value, ref(f'{case}loss'), TOL[dtype], 'loss')
    close(student.grad, ref(f'{case}grad_student'), TOL[dtype], 'grad_student')


def test_hcl_plain_formula():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 8).double(), torch.randn(2, 3, 4, 8).double()
    two = [F.avg_pool2d(x, (2, 4)) for x in (student, teacher)]
    one = [x.mean((2, 3)) for x in (student, teacher)]
    terms = [((a - b) ** 2).mean() for a, b in ((student, teacher), two, one)]  # 4 is not below the height
    torch.testing.assert_close(hcl(student, teacher), (terms[0] + terms[1] / 2 + terms[2] / 4) / 1.75)


def test_gradcheck_parameters_and_zero_at_equality():
    torch.manual_seed(1)
    loss = ReviewKDLoss([2, 3], [3, 2], mid_channel=2).double()
    maps = [torch.randn(2, c, *size).double().requires_grad_() for c, size in ((2, (4, 5)), (3, (2, 3)))]
    teacher = [torch.randn(2, 3, 4, 5).double(), torch.randn(2, 2, 2, 3).double()]
    assert torch.autograd.gradcheck(lambda a, b: loss([a, b], teacher), maps)
    names = [name for name, _ in loss.named_parameters()]
    parameters = [p.detach().clone().requires_grad_() for p in loss.parameters()]

    def by_parameters(*values):
        return torch.func.functional_call(loss, dict(zip(names, values)), (maps, teacher))

    assert torch.autograd.gradcheck(by_parameters, parameters)
    assert loss(maps, [x.detach() for x in loss.fuse(maps)]) < 1e-28


def test_one_value_per_channel_at_the_deepest_level():
    torch.manual_seed(2)
    student = [torch.randn(1, 3, n, n, requires_grad=True) for n in (2, 1)]
    loss = ReviewKDLoss([3, 3], [4, 4], mid_channel=5)
    loss(student, [torch.randn(1, 4, n, n) for n in (2, 1)]).backward()
    assert all(torch.isfinite(x.grad).all() and x.grad.any() for x in student)


def test_errors():
    loss, maps = ReviewKDLoss([3, 3], [4, 4], 5), [torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 2, 2)]
    with pytest.raises(ValueError, match='2 levels are expected, found 1'):
        loss(maps[:1], maps[:1])
    with pytest.raises(ValueError, match='lists of as many maps'):
        loss(maps, maps[:1])
    with pytest.raises(ValueError, match=r'level 0: the teacher must have 4 channels.*\(1, 3, 4, 4\)'):
        loss(maps, maps)
    with pytest.raises(ValueError, match=r'teacher_channels=\[4\]'):
        ReviewKDLoss([3, 3], [4])
