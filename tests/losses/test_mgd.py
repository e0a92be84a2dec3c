import pytest
import torch
import torch.nn.functional as F

from kd_det.losses import MGDLoss, _generation

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('mgd'), TOL[dtype]
    loss = MGDLoss(6, 8, ref.hparams['alpha_mgd'], ref.hparams['lambda_mgd'])
    loss.load_state_dict(ref.under('param.'))
    loss.to(dtype)
    student, teacher, uniform = ref('student', dtype).requires_grad_(), ref('teacher', dtype), ref('uniform', dtype)
    assert torch.equal(loss.mask(teacher, uniform).double(), ref('mask'))
    value = loss(student, teacher, uniform)
    value.backward()
    close(value, ref('loss'), tol, 'loss')
    close(value / loss.alpha_mgd, ref('loss.unweighted'), tol, 'unweighted')
    close(student.grad, ref('grad_student'), tol, 'grad_student')
    for name, parameter in loss.named_parameters():
        close(parameter.grad, ref(f'grad_param.{name}'), tol, name)


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference_channel_mask(reference, close, dtype):
    ref, tol = reference('mgd'), TOL[dtype]
    loss = MGDLoss(8, 8, ref.hparams['alpha_mgd'], ref.hparams['lambda_mgd_channel'], mask_type='channel')
    loss.load_state_dict(ref.under('channel.param.'))
    loss.to(dtype)
    student, teacher = ref('channel.student', dtype).requires_grad_(), ref('teacher', dtype)
    uniform = ref('channel.uniform', dtype)
    assert torch.equal(loss.mask(teacher, uniform).double(), ref('channel.mask'))
    value = loss(student, teacher, uniform)
    value.backward()
    close(value, ref('channel.loss'), tol, 'loss')
    close(student.grad, ref('channel.grad_student'), tol, 'grad_student')


@pytest.mark.parametrize('mask_type, shape', [('spatial', (4, 1, 50, 40)), ('channel', (4, 400, 1, 1))])
def test_share_that_is_erased(mask_type, shape):
    torch.manual_seed(0)
    mask = MGDLoss(400, 400, lambda_mgd=0.65, mask_type=mask_type).mask(torch.zeros(4, 400, 50, 40))
    assert mask.shape == shape and set(mask.unique().tolist()) == {0.0, 1.0}
    deviation = (0.65 * 0.35 / mask.numel()) ** 0.5
    assert abs(mask.mean().item() - 0.35) < 4 * deviation


def test_nothing_or_all_erased():
    torch.manual_seed(1)
    student, teacher = torch.randn(2, 3, 5, 6), torch.randn(2, 3, 5, 6)
    loss = MGDLoss(3, 3, alpha_mgd=1.0, lambda_mgd=0.0)
    first, second = loss.generation[0], loss.generation[2]
    plain = F.conv2d(
        F.conv2d(student, first.weight, first.bias, padding=1).relu(), second.weight, second.bias, padding=1
    )
    torch.testing.assert_close(loss(student, teacher), ((plain - teacher) ** 2).sum() / 2)
    loss.lambda_mgd = 1.0
    torch.testing.assert_close(loss(student, teacher, torch.full((2, 1, 5, 6), 0.5)), loss(0 * student, teacher))


def test_draws_anew_and_follows_the_seed():
    student, teacher = torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    loss = MGDLoss(3, 3)
    torch.manual_seed(2)
    first, second = loss(student, teacher), loss(student, teacher)
    torch.manual_seed(2)
    assert loss(student, teacher) == first != second


def test_gradcheck_and_zero_at_equality():
    torch.manual_seed(3)
    loss = MGDLoss(2, 3, alpha_mgd=0.1).double()
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    uniform = torch.rand(2, 1, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, uniform), (student,))
    generated = loss.generation(loss.align(student) * loss.mask(teacher, uniform)).detach()
    assert loss(student, generated, uniform) == 0


def outcome(loss, student, teacher, uniform):
    """The value and all gradients, None where there is none."""
    leaves = [student, *loss.parameters()]
    for leaf in leaves:
        leaf.grad = None
    value = loss(student, teacher, uniform)
    if value.requires_grad:
        value.backward()
    return [value.detach(), *(leaf.grad for leaf in leaves)]


@pytest.fixture
def in_blocks(monkeypatch):
    """Small maps take the way of large ones, in blocks of three rows; counts how many do."""
    calls = []
    monkeypatch.setattr(_generation, 'LARGE', 0)
    monkeypatch.setattr(_generation, 'BLOCK_BYTES', 0)
    monkeypatch.setattr(_generation, 'LEAST_ROWS', 3)
    block = _generation._block
    monkeypatch.setattr(_generation, '_block', lambda *args: calls.append(args) or block(*args))
    return calls


def draw(*size, channels=4):
    torch.manual_seed(4)
    loss = MGDLoss(3, channels, alpha_mgd=1.0, mask_type='spatial').double()
    student, teacher = (torch.randn(2, c, *size, dtype=torch.float64) for c in (3, channels))
    return loss, student.requires_grad_(), teacher, torch.rand(2, 1, *size, dtype=torch.float64)


@pytest.mark.parametrize('height', [1, 2, 3, 4, 5, 9, 10])
def test_blocks_of_rows_change_nothing(in_blocks, height, monkeypatch):
    given = draw(height, 5)
    found = outcome(*given)
    assert len(in_blocks) == 2 * -(-height // 3)  # of two images
    monkeypatch.setattr(_generation, 'LARGE', 2**25)
    torch.testing.assert_close(found, outcome(*given), rtol=1e-10, atol=1e-10)
    assert len(in_blocks) == 2 * -(-height // 3)


@pytest.mark.parametrize('frozen', [(0, 1, 2, 3), (0, 1), (2, 3), (0, 3), ()])
@pytest.mark.parametrize('student_learns', [True, False])
def test_blocks_of_rows_with_frozen_weights(in_blocks, monkeypatch, frozen, student_learns):
    loss, student, teacher, uniform = draw(8, 5, channels=3)
    student.requires_grad_(student_learns)
    for at in frozen:
        list(loss.generation.parameters())[at].requires_grad_(False)
    found = outcome(loss, student, teacher, uniform)
    assert in_blocks
    monkeypatch.setattr(_generation, 'LARGE', 2**25)
    expected = outcome(loss, student, teacher, uniform)
    assert [x is None for x in found] == [x is None for x in expected]
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_blocks_of_rows_mask_channels_under_autocast(in_blocks, monkeypatch):
    torch.manual_seed(5)
    loss = MGDLoss(4, 4, alpha_mgd=1.0, mask_type='channel')
    student, teacher = torch.randn(2, 4, 7, 5, requires_grad=True), torch.randn(2, 4, 7, 5)
    given = loss, student, teacher.to(memory_format=torch.channels_last), torch.rand(2, 4, 1, 1)
    with torch.autocast('cpu', torch.bfloat16):
        found = outcome(*given)
    assert in_blocks
    monkeypatch.setattr(_generation, 'LARGE', 2**25)
    torch.testing.assert_close(found, outcome(*given), rtol=1e-5, atol=1e-5)


def test_blocks_of_rows_without_gradient_and_twice(in_blocks):
    loss, student, teacher, uniform = draw(7, 5)
    with torch.no_grad():
        value = loss(student, teacher, uniform)
    assert in_blocks[0][-1] == [None] * 5 and not value.requires_grad  # no gradient was computed
    again = loss(student, teacher, uniform)
    first, second = (torch.autograd.grad(again, student, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(again.detach(), value) and torch.equal(first, second)


def test_other_layers_never_work_in_blocks(in_blocks):
    loss, *given = draw(7, 5)
    seen = []
    handle = loss.generation[1].register_forward_hook(lambda *args: seen.append(args))
    loss(*given)
    handle.remove()
    handle = loss.generation[2].register_full_backward_pre_hook(lambda *args: seen.append(args))
    loss(*given)
    handle.remove()
    loss.generation[1] = torch.nn.GELU()
    loss(*given)
    loss.generation = torch.nn.Sequential(
        *(torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode=mode) for mode in ('zeros', 'reflect'))
    ).double()
    loss.generation.insert(1, torch.nn.ReLU())
    loss(*given)
    assert seen and not in_blocks


def test_only_large_maps_work_in_blocks():
    generation = MGDLoss(256, 256).generation
    with torch.device('meta'):
        assert not _generation.works_in_blocks(generation, torch.empty(1, 256, 256, 256))  # not on a CPU
    sizes = {side: torch.zeros(()).expand(1, 256, side, side) for side in (128, 181, 182, 256)}
    assert [_generation.works_in_blocks(generation, maps) for maps in sizes.values()] == [False, False, True, True]


def test_align_only_where_channels_differ():
    assert set(MGDLoss(4, 4).state_dict()) == {f'generation.{i}.{p}' for i in (0, 2) for p in ('weight', 'bias')}
    assert MGDLoss(3, 4).align.weight.shape == (4, 3, 1, 1)


def test_errors():
    loss = MGDLoss(3, 4)
    with pytest.raises(ValueError, match=r'student must have 3 channels.*\(1, 4, 5, 5\)'):
        loss(torch.zeros(1, 4, 5, 5), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'agree in B, H and W.*\(1, 3, 5, 6\)'):
        loss(torch.zeros(1, 3, 5, 6), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'uniform must have shape \(1, 1, 5, 5\), found \(1, 4, 5, 5\)'):
        loss(torch.zeros(1, 3, 5, 5), torch.zeros(1, 4, 5, 5), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match="mask_type='spacial'.*Nearest: 'spatial'"):
        MGDLoss(3, 4, mask_type='spacial')
    with pytest.raises(ValueError, match='lambda_mgd=65'):
        MGDLoss(3, 4, lambda_mgd=65)
