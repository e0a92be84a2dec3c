import pytest
import torch
import torch.nn.functional as F

from kd_det.losses.fbkd import FBKDLoss, NonLocal

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}
LAYERS = {
    'align': 'student_connector.adaptation_layers',
    'channel_align': 'student_connector.channel_wise_adaptation',
    'spatial_align': 'student_connector.spatial_wise_adaptation',
    'non_local_align': 'student_connector.non_local_adaptation',
}
INNER = {'theta': 'theta.conv', 'phi': 'phi.0.0.conv', 'g': 'g.0.0.conv', 'conv_out': 'conv_out.conv'}
INNER['bn'] = 'conv_out.bn'


def their_name(ours):
    *layers, what = ours.split('.')
    if len(layers) == 1:
        return f'{LAYERS[layers[0]]}.{what}'
    side = layers[0].split('_')[0]
    return f'{side}_connector.{layers[0]}.{INNER[layers[1]]}.{what}'


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('fbkd'), TOL[dtype]
    # The reference pools by 2 and then by its maxpool_stride.
    loss = FBKDLoss(8, 8, ref.hparams['reduction'], True, 2 * ref.hparams['maxpool_stride'])
    names = {name: their_name(name) for name, _ in loss.named_parameters()}
    assert set(names.values()) == set(ref.under('param.'))
    for name, parameter in loss.named_parameters():
        parameter.data.copy_(ref(f'param.{names[name]}'))
    loss.to(dtype)
    student, teacher = ref('student', dtype).requires_grad_(), ref('teacher', dtype)
    found = loss(student, teacher)
    for name, value in found.items():
        close(value / loss.weights[name], ref(f'loss.{name}_unweighted'), tol, name)
    total = sum(found.values())
    total.backward()
    close(total, ref('loss'), tol, 'loss')
    close(loss.mask(student, teacher), ref('spatial_mask_sum'), tol, 'spatial_mask_sum')
    close(student.grad, ref('grad_student'), tol, 'grad_student')
    for name, parameter in loss.named_parameters():
        close(parameter.grad, ref(f'grad_param.{names[name]}'), tol, name)


def test_defaults_are_the_published_ones(reference):
    hparams = reference('fbkd').hparams
    expected = {
        name: hparams[f'{"mask_l2" if name == "feat" else name}_weight']
        for name in ('feat', 'channel', 'spatial', 'nonlocal')
    }
    assert FBKDLoss(4, 4).weights == expected and FBKDLoss(4, 4).spatial_T == hparams['spatial_T']


@pytest.mark.parametrize('stride, pooled', [(1, (4, 6)), (2, (2, 3)), (9, (1, 1))])
def test_non_local_block_position_by_position(stride, pooled):
    torch.manual_seed(0)
    block, maps = NonLocal(4, 2, stride).double().eval(), torch.randn(2, 4, 4, 6).double()
    assert torch.equal(block(maps), maps)  # the weight of the batch norm starts at 0
    block.bn.weight.data.uniform_(0.5, 1)
    theta, phi, g = (
        block.theta(maps).flatten(2),
        *(F.adaptive_max_pool2d(c(maps), pooled) for c in (block.phi, block.g)),
    )
    weights = torch.einsum('bci,bcj->bij', theta, phi.flatten(2)) / phi[0, 0].numel()
    gathered = torch.einsum('bij,bcj->bci', weights, g.flatten(2)).view(2, 2, 4, 6)
    torch.testing.assert_close(block(maps), maps + block.bn(block.conv_out(gathered)))


def test_no_positions_by_positions():
    torch.manual_seed(1)
    block, saved = NonLocal(8, 2, 1), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        block(torch.randn(1, 8, 32, 32, requires_grad=True))
    assert max(saved) <= 8 * 32 * 32


def test_gradcheck_and_plain_formula():
    torch.manual_seed(2)
    loss = FBKDLoss(2, 3, 1, spatial_T=0.7, loss_weight=3.0).double()
    for block in (loss.student_non_local, loss.teacher_non_local):
        block.bn.weight.data.uniform_(0.5, 1)
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 3, 4, dtype=torch.float64)
    for part in ('channel', 'spatial', 'nonlocal'):
        assert torch.autograd.gradcheck(lambda s, p=part: loss(s, teacher)[p], (student,))
    masks = [24 / 2 * F.softmax(x.abs().mean(1).flatten(1) / 0.7, dim=1).view(2, 1, 3, 4) for x in (student, teacher)]
    feat = (0.5 * (masks[0] + masks[1]) * (loss.align(student) - teacher) ** 2).sum().sqrt()
    torch.testing.assert_close(loss(student, teacher)['feat'], 3 * 7e-5 * feat)


def test_zero_at_equality_with_finite_gradients():
    torch.manual_seed(3)
    loss, student = FBKDLoss(2, 2).double(), torch.randn(2, 2, 3, 4).double().requires_grad_()
    for layer in (loss.align, loss.channel_align, loss.non_local_align):
        layer.weight.data.copy_(torch.eye(2).view_as(layer.weight))
        layer.bias.data.zero_()
    loss.spatial_align.weight.data.zero_()[0, 0, 1, 1] = 1
    loss.spatial_align.bias.data.zero_()
    total = sum(loss(student, student).values())
    total.backward()
    assert total == 0 and not student.grad.any()


def test_one_value_per_channel_and_huge_maps():
    for maps in (torch.randn(1, 3, 1, 1), torch.full((1, 3, 2, 2), 1e4)):
        student = maps.clone().requires_grad_()
        sum(
            FBKDLoss(3, 4, sub_sample=True, maxpool_stride=8)(student, torch.randn(1, 4, *maps.shape[2:])).values()
        ).backward()
        assert torch.isfinite(student.grad).all()


def test_errors():
    with pytest.raises(ValueError, match=r'student must have 3 channels.*\(1, 4, 5, 5\)'):
        FBKDLoss(3, 4)(torch.zeros(1, 4, 5, 5), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match=r'agree in B, H and W.*\(1, 3, 5, 6\)'):
        FBKDLoss(3, 4)(torch.zeros(1, 3, 5, 6), torch.zeros(1, 4, 5, 5))
    with pytest.raises(ValueError, match='maxpool_stride=0'):
        FBKDLoss(3, 4, maxpool_stride=0)
