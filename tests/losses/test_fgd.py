import statistics
import time

import pytest
import torch
import torch.nn.functional as F

from kd_det.losses import FGDLoss, _functional, _fused

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}
DTYPES = [torch.float64, torch.float32]
# A bias in front of a soft-max has a gradient of rounding size.
ROUNDING = {'conv_mask_s.bias', 'conv_mask_t.bias'}


# ------------------------------------------------------------------------------------------------- slow and plain


def slow_masks(boxes, map_size, image_sizes):
    """The masks by loops over boxes and cells."""
    height, width = map_size
    fg = torch.zeros(len(boxes), height, width, dtype=torch.float64)
    bg = torch.zeros_like(fg)
    for image, (of_image, (h, w)) in enumerate(zip(boxes, image_sizes)):
        for box in of_image.reshape(-1, 4):
            x1, x2 = box[0] / w * width, box[2] / w * width
            y1, y2 = box[1] / h * height, box[3] / h * height
            x1, y1, x2, y2 = int(x1.floor()), int(y1.floor()), int(x2.ceil()), int(y2.ceil())
            if x2 < x1 or y2 < y1:
                continue
            weight = 1 / ((x2 - x1 + 1) * (y2 - y1 + 1))
            for y in range(max(y1, 0), min(y2 + 1, height)):
                for x in range(max(x1, 0), min(x2 + 1, width)):
                    fg[image, y, x] = max(fg[image, y, x].item(), weight)
        empty = fg[image] == 0
        if empty.any():
            bg[image, empty] = 1 / empty.sum().double()
    return fg, bg


def slow_loss(loss, student, teacher, boxes, sizes):
    """The whole loss by plain autograd, term for term as the formula says."""
    batch, channels, height, width = teacher.shape
    if loss.align is not None:
        student = loss.align(student)

    def spatial(x):
        return height * width * F.softmax(x.abs().mean(1).view(batch, -1) / loss.temp, 1).view(batch, 1, height, width)

    def channel(x):
        return channels * F.softmax(x.abs().mean((2, 3)) / loss.temp, 1)[:, :, None, None]

    def relation(x, conv, block):
        weight = F.softmax(conv(x).view(batch, -1), 1).view(batch, 1, height, width)
        return x + block((x * weight).sum((2, 3), keepdim=True))

    fg, bg = (m[:, None].to(teacher.dtype) for m in slow_masks(boxes, (height, width), sizes))
    energy = (student - teacher) ** 2 * spatial(teacher) * channel(teacher)
    masks = (channel(student) - channel(teacher)).abs().sum() + (spatial(student) - spatial(teacher)).abs().sum()
    related = relation(student, loss.conv_mask_s, loss.channel_add_conv_s)
    related = related - relation(teacher, loss.conv_mask_t, loss.channel_add_conv_t)
    total = loss.alpha_fgd * (energy * fg).sum() + loss.beta_fgd * (energy * bg).sum()
    return (total + loss.gamma_fgd * masks + loss.lambda_fgd * (related**2).sum()) / batch


def random_boxes(number, height, width, generator, outside=0.2):
    """Boxes of all sizes, some over the border or outside, some without area."""
    scale = torch.tensor([width, height], dtype=torch.float64)
    start = (torch.rand(number, 2, generator=generator, dtype=torch.float64) * (1 + 2 * outside) - outside) * scale
    size = torch.rand(number, 2, generator=generator, dtype=torch.float64) ** 3 * scale
    size[torch.rand(number, generator=generator) < 0.1] = 0
    return torch.cat((start, start + size), 1)


def randomise(loss, seed=0):
    """Give every parameter a random value: the authors start the context blocks at zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in loss.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return loss


# ---------------------------------------------------------------------------------------------- reference numbers


def from_reference(ref, level, dtype, **kwargs):
    hp = ref.hparams
    constants = {key: hp[key] for key in ('temp', 'alpha_fgd', 'beta_fgd', 'gamma_fgd', 'lambda_fgd')}
    loss = FGDLoss(hp['student_channels'], hp['teacher_channels'], **constants, **kwargs)
    loss.load_state_dict(ref.under(f'param.{level}.'))
    return loss.to(dtype)


def sizes_of(ref, key):
    return [tuple(shape[:2]) for shape in ref.hparams[key]]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('level', [0, 1])
@pytest.mark.parametrize('paper_masks', [True, False])
def test_reference(reference, close, paper_masks, level, dtype):
    ref, tol = reference('fgd'), TOL[dtype]
    case = '' if paper_masks else 'padmode.'
    loss = from_reference(ref, level, dtype, paper_masks=paper_masks)
    student, teacher = ref(f'student.{level}', dtype).requires_grad_(), ref(f'teacher.{level}', dtype)
    boxes = [ref(f'gt_bboxes.{i}', dtype) for i in range(3)]
    sizes = dict(image_sizes=sizes_of(ref, 'img_shape'), batch_input_shape=sizes_of(ref, 'pad_shape')[0])
    value = loss(student, teacher, boxes, **sizes)
    value.backward()
    close(value, ref(f'{case}loss.{level}'), tol, 'loss')
    close(student.grad, ref(f'{case}grad_student.{level}'), tol, 'grad_student')

    parts = loss.parts(student, teacher, boxes, **sizes)
    for name in ('fg', 'bg'):
        close(parts[name], ref(f'{case}loss.{level}.{name}'), tol, name)
    mask_fg, mask_bg = loss.foreground_mask(boxes, tuple(teacher.shape[2:]), **sizes)
    close(mask_fg, ref(f'{case}mask_fg.{level}'), tol, 'mask_fg')
    if paper_masks:
        close(mask_bg, ref(f'mask_bg.{level}'), tol, 'mask_bg')
        close(parts['mask_channel'] + parts['mask_spatial'], ref(f'loss.{level}.mask'), tol, 'mask')
        for name in ('mask_channel', 'mask_spatial', 'relation'):
            close(parts[name], ref(f'loss.{level}.{name}'), tol, name)
        for name, gradient in ((n, p.grad) for n, p in loss.named_parameters()):
            expected = ref(f'grad_param.{level}.{name}')
            if name in ROUNDING:
                assert expected.abs().max() < 1e-15 and gradient.abs().max() < (1e-15 if tol < 1e-8 else 1e-6)
            else:
                close(gradient, expected, tol, name)
        close(loss.spatial_attention(teacher), ref(f'spatial_attention_teacher.{level}'), tol, 'spatial')
        close(loss.channel_attention(teacher), ref(f'channel_attention_teacher.{level}'), tol, 'channel')


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('case', ['all_empty', 'full_cover'])
def test_reference_extreme_boxes(reference, close, case, dtype):
    ref, tol = reference('fgd'), TOL[dtype]
    level = ref.hparams['levels'] - 1
    sizes = sizes_of(ref, 'img_shape')
    boxes = [torch.tensor([[0.0, 0.0, w, h]], dtype=dtype)[: case == 'full_cover'] for h, w in sizes]
    loss = from_reference(ref, level, dtype, paper_masks=True)
    student, teacher = ref(f'student.{level}', dtype).requires_grad_(), ref(f'teacher.{level}', dtype)
    value = loss(student, teacher, boxes, sizes)
    value.backward()
    close(value, ref(f'{case}.loss'), tol, 'loss')
    if case == 'full_cover':
        masks = loss.foreground_mask(boxes, tuple(teacher.shape[2:]), sizes)
        for found, name in zip(masks, ('mask_fg', 'mask_bg')):
            assert torch.equal(found.double() > 0, ref(f'{case}.{name}') > 0)
            close(found, ref(f'{case}.{name}'), tol, name)
    else:
        close(student.grad, ref('all_empty.grad_student'), tol, 'grad_student')


def test_box_outside_is_clipped(reference):
    """The published code marks nothing for a box that sticks out at the left or top; here its visible part counts."""
    ref = reference('fgd')
    sizes = sizes_of(ref, 'img_shape')
    boxes = [ref('outside.gt_bboxes.0'), torch.zeros(0, 4), torch.zeros(0, 4)]
    assert (boxes[0][0, :2] < 0).any()
    found, _ = FGDLoss(8, 8, paper_masks=True).foreground_mask(boxes, (6, 8), sizes)
    expected, _ = slow_masks(boxes, (6, 8), sizes)
    assert (expected[0] > 0).any() and not ref('outside.mask_fg').any()
    torch.testing.assert_close(found.double(), expected)


def test_state_dict_has_the_names_of_the_published_module(reference):
    ref = reference('fgd')
    expected = {name: tuple(value.shape) for name, value in ref.under('param.0.').items()}
    assert {name: tuple(value.shape) for name, value in FGDLoss(6, 8).state_dict().items()} == expected
    assert set(FGDLoss(8, 8).state_dict()) == {name for name in expected if not name.startswith('align')}


# ----------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize('number', [0, 1, 2, 23, 24, 25, 48, 49, 200])
def test_masks_equal_loops_over_boxes(number):
    generator = torch.Generator().manual_seed(number)
    height, width = 96, 160
    boxes = [random_boxes(n, height, width, generator) for n in (number, 3, 0, number // 2)]
    sizes = [(96, 160), (64, 130), (96, 100), (33, 160)]
    for map_size in ((12, 20), (7, 9), (1, 1)):
        for paper, used in ((True, sizes), (False, [(height, width)] * 4)):
            found = FGDLoss(4, 4, paper_masks=paper).foreground_mask(boxes, map_size, sizes, (height, width))
            for mask, expected in zip(found, slow_masks(boxes, map_size, used)):
                torch.testing.assert_close(mask, expected, rtol=1e-12, atol=0)


def test_smallest_of_many_boxes_wins():
    """A cell under hundreds of boxes, where the sum of powers of two is as close to carrying over as it can be."""
    number = 256  # a power of two, so that box / size * map is exact
    side = torch.arange(1, number + 1, dtype=torch.float64)
    boxes = torch.stack((0 * side, 0 * side, side, side), 1)[torch.randperm(number)]
    found, _ = FGDLoss(4, 4).foreground_mask([boxes], (number, number), None, (number, number))
    reach = torch.maximum(torch.arange(number)[:, None], torch.arange(number)).double()
    expected = 1 / (reach.clamp(min=1) + 1) ** 2  # box of side k covers the cells 0..k
    torch.testing.assert_close(found[0], expected, rtol=1e-12, atol=0)
    with torch.autocast('cpu', torch.bfloat16):
        again, _ = FGDLoss(4, 4).foreground_mask([boxes], (number, number), None, (number, number))
    assert torch.equal(found, again)


def test_padding_stretches_only_the_paper_masks():
    boxes = [torch.tensor([[0.0, 0.0, 32.0, 32.0]])]
    right, _ = FGDLoss(4, 4).foreground_mask(boxes, (16, 16), [(64, 64)], (128, 128))
    paper, _ = FGDLoss(4, 4, paper_masks=True).foreground_mask(boxes, (16, 16), [(64, 64)], (128, 128))
    assert (right[0] > 0).sum() == 25 and (paper[0] > 0).sum() == 81  # ceil is included: 5 x 5 and 9 x 9 cells


NASTY = {
    'none': torch.zeros(0, 4),
    'flat': torch.zeros(0),
    'border': torch.tensor([[0.0, 0.0, 64.0, 48.0], [60.0, 40.0, 64.0, 48.0]]),
    'over': torch.tensor([[-20.0, -10.0, 5.0, 5.0], [50.0, 30.0, 500.0, 400.0], [-1e6, -1e6, 1e6, 1e6]]),
    'outside': torch.tensor([[100.0, 100.0, 120.0, 120.0], [-50.0, -50.0, -20.0, -20.0], [64.0, 48.0, 64.0, 48.0]]),
    'zero area': torch.tensor([[10.0, 10.0, 10.0, 10.0], [8.0, 16.0, 8.0, 16.0], [0.0, 0.0, 0.0, 0.0]]),
    'upside down': torch.tensor([[30.0, 30.0, 10.0, 10.0]]),
    'not finite': torch.tensor([[float('nan')] * 4, [0.0, 0.0, float('inf'), 10.0]]),
    'integers': torch.tensor([[3, 4, 20, 30]]),
}


@pytest.mark.parametrize('name', NASTY)
@pytest.mark.parametrize('paper_masks', [True, False])
def test_nasty_boxes_give_finite_losses(name, paper_masks):
    torch.manual_seed(0)
    loss = randomise(FGDLoss(4, 6, paper_masks=paper_masks))
    student, teacher = torch.randn(2, 4, 6, 8, requires_grad=True), torch.randn(2, 6, 6, 8)
    boxes = [NASTY[name], torch.tensor([[4.0, 4.0, 20.0, 20.0]])]
    value = loss(student, teacher, boxes, [(48, 64), (40, 50)], (48, 64))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(student.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in loss.parameters())
    if name != 'not finite':
        used = [(48, 64), (40, 50)] if paper_masks else [(48, 64)] * 2
        expected = slow_loss(loss, student, teacher, boxes, used)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)


# --------------------------------------------------------------------------------------------------- loss, gradient


@pytest.mark.parametrize('channels', [(5, 8), (8, 8)])
@pytest.mark.parametrize('step', [None, 1, 3])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_equals_plain_autograd(monkeypatch, channels, step, memory_format):
    if step is not None:
        for module in (_fused, _functional):
            monkeypatch.setattr(module, 'channel_step', lambda maps: step)
    generator = torch.Generator().manual_seed(1)
    loss = randomise(FGDLoss(*channels, temp=0.8, alpha_fgd=0.3, beta_fgd=0.2, gamma_fgd=0.1, lambda_fgd=0.05)).double()
    student = torch.randn(3, channels[0], 7, 9, generator=generator, dtype=torch.float64)
    student[0, 0, 0, 0] = 0  # the gradient of an absolute value at zero is zero
    student = student.contiguous(memory_format=memory_format).requires_grad_()
    teacher = torch.randn(3, channels[1], 7, 9, generator=generator, dtype=torch.float64)
    teacher = teacher.contiguous(memory_format=memory_format)
    boxes = [random_boxes(n, 56, 72, generator) for n in (4, 0, 30)]
    inputs = [student, *loss.parameters()]
    value = loss(student, teacher, boxes, None, (56, 72))
    expected = slow_loss(loss, student, teacher, boxes, [(56, 72)] * 3)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    for found, slow in zip(torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs)):
        torch.testing.assert_close(found, slow, rtol=1e-9, atol=1e-12)


def test_gradcheck():
    torch.manual_seed(2)
    loss = randomise(FGDLoss(2, 4, alpha_fgd=0.3, beta_fgd=0.2, gamma_fgd=0.1, lambda_fgd=0.05)).double()
    student = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 4, 3, 4, dtype=torch.float64)
    boxes = [torch.tensor([[1.0, 1.0, 12.0, 9.0]]), torch.zeros(0, 4)]
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, boxes, None, (12, 16)), (student,))


def test_only_parameters_learn():
    """The student may be frozen: parameters still get the gradient that they get otherwise."""
    torch.manual_seed(3)
    loss = randomise(FGDLoss(4, 4))
    student, teacher = torch.randn(2, 4, 5, 5), torch.randn(2, 4, 5, 5)
    boxes = [torch.tensor([[0.0, 0.0, 9.0, 9.0]])] * 2
    first = torch.autograd.grad(loss(student, teacher, boxes, None, (40, 40)), list(loss.parameters()))
    second = torch.autograd.grad(
        loss(student.clone().requires_grad_(), teacher, boxes, None, (40, 40)), list(loss.parameters())
    )
    for one, other in zip(first, second):
        assert torch.equal(one, other)


def test_zero_at_equality_at_the_start():
    torch.manual_seed(4)
    loss = FGDLoss(4, 4)
    maps = torch.randn(2, 4, 6, 8)
    boxes = [torch.tensor([[4.0, 4.0, 30.0, 30.0]]), torch.zeros(0, 4)]
    assert all(part == 0 for part in loss.parts(maps, maps.clone(), boxes, None, (48, 64)).values())
    moved = loss.parts(maps + 0.1 * torch.randn_like(maps), maps, boxes, None, (48, 64))
    assert all(part > 0 for part in moved.values())


def test_order_of_images_does_not_matter():
    generator = torch.Generator().manual_seed(5)
    loss = randomise(FGDLoss(4, 6)).double()
    student = torch.randn(3, 4, 6, 8, generator=generator, dtype=torch.float64)
    teacher = torch.randn(3, 6, 6, 8, generator=generator, dtype=torch.float64)
    boxes = [random_boxes(n, 48, 64, generator) for n in (5, 0, 9)]
    order = [2, 0, 1]
    first = loss(student, teacher, boxes, None, (48, 64))
    second = loss(student[order], teacher[order], [boxes[i] for i in order], None, (48, 64))
    torch.testing.assert_close(first, second, rtol=1e-13, atol=0)


def test_loss_weight():
    torch.manual_seed(6)
    loss = randomise(FGDLoss(4, 4))
    scaled = FGDLoss(4, 4, loss_weight=3.0)
    scaled.load_state_dict(loss.state_dict())
    inputs = (torch.randn(1, 4, 5, 5), torch.randn(1, 4, 5, 5), [torch.zeros(0, 4)], None, (40, 40))
    torch.testing.assert_close(scaled(*inputs), 3 * loss(*inputs))


MAP = torch.zeros(2, 4, 5, 5)
BOXES = [torch.zeros(0, 4)] * 2


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(student=torch.zeros(2, 4, 5)), r'\(2, 4, 5\)'),
        (dict(student=torch.zeros(2, 4, 5, 6)), r'agree in B, H and W.*\(2, 4, 5, 6\).*\(2, 4, 5, 5\)'),
        (dict(student=torch.zeros(2, 3, 5, 5)), r'student must have 4 channels.*\(2, 3, 5, 5\)'),
        (dict(teacher=torch.zeros(2, 3, 5, 5)), r'teacher must have 4 channels.*\(2, 3, 5, 5\)'),
        (dict(gt_bboxes=BOXES[:1]), r'each of 2 images.*\[\(0, 4\)\]'),
        (dict(gt_bboxes=[torch.zeros(3, 5)] * 2), r'\(n, 4\).*\(3, 5\)'),
        (dict(batch_input_shape=None), r'batch_input_shape.*None'),
        (dict(paper_masks=True, image_sizes=None), r'image_sizes.*nothing'),
        (dict(paper_masks=True, image_sizes=[(4, 4)]), r'image_sizes.*2 images.*1'),
    ],
)
def test_errors_show_what_is_wrong(change, message):
    change = dict(change)
    loss = FGDLoss(4, 4, paper_masks=change.pop('paper_masks', False))
    inputs = dict(student=MAP, teacher=MAP, gt_bboxes=BOXES, image_sizes=[(40, 40)] * 2, batch_input_shape=(40, 40))
    with pytest.raises(ValueError, match=message):
        loss(**{**inputs, **change})


def test_cost_does_not_grow_with_boxes():
    """200 boxes per image cost at most 1.3 times what 5 do, forward and backward, at a real size."""
    generator = torch.Generator().manual_seed(7)
    loss = FGDLoss(256, 256)
    student = torch.randn(2, 256, 100, 168, generator=generator).requires_grad_()
    teacher = torch.randn(2, 256, 100, 168, generator=generator)
    boxes = {n: [random_boxes(n, 800, 1344, generator).float() for _ in range(2)] for n in (5, 200)}

    def seconds(number):
        student.grad = None
        start = time.perf_counter()
        loss(student, teacher, boxes[number], None, (800, 1344)).backward()
        return time.perf_counter() - start

    def ratio(runs):
        times = {n: [] for n in boxes}
        for _ in range(runs):
            for n in boxes:
                times[n].append(seconds(n))
        return statistics.median(times[200]) / statistics.median(times[5])

    ratio(1)  # warm up
    found = []
    while len(found) < 3 and (not found or found[-1] > 1.3):  # a machine busy elsewhere gets another chance
        found.append(ratio(5))
    assert found[-1] <= 1.3, f'200 boxes cost {found} times what 5 do'
