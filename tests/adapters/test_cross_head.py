"""Features through the rest of the teacher's head, against the head written out by hand for each detector."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox_overlaps
from tiny_models import AS_LOADED, atss, batch, distiller, fcos, gfl, retina, ssd, total
from torch import nn

from kd_det.adapters.cross_head import match_statistics, replaced_forward
from kd_det.errors import ConfigError
from kd_det.registry import MODELS

FAMILIES = dict(retina=retina, gfl=gfl, atss=atss, fcos=fcos)
#: Names of the predicting layers in each head.
LAYERS = dict(
    retina=('retina_cls', 'retina_reg', None),
    gfl=('gfl_cls', 'gfl_reg', None),
    atss=('atss_cls', 'atss_reg', 'atss_centerness'),
    fcos=('conv_cls', 'conv_reg', 'conv_centerness'),
)


def config(family, stacked=3, **head):
    cfg = copy.deepcopy(FAMILIES[family]())
    norm = dict(norm_cfg=dict(type='GN', num_groups=4)) if family in ('fcos', 'atss') else {}
    cfg['bbox_head'].update(dict(stacked_convs=stacked, **norm, **head))
    return cfg


def term(idx=1, eps=1e-6, student='bbox_head@in[0]', teacher='bbox_head', **loss):
    adapter = dict(type='kd_det.CrossHead', idx=idx, eps=eps)
    return dict(
        cross=dict(student=student, teacher=teacher, adapter=adapter, loss=dict(type='kd_det.CrossKDLoss', **loss))
    )


def build(family, idx=1, eps=1e-6, stacked=3, student=None, teacher=None, engine=None, **head):
    """A distiller whose heads have large random weights, so that features and predictions vary."""
    teacher = teacher or config(family, stacked, **head)
    model = distiller(student or copy.deepcopy(teacher), teacher, term(idx, eps), engine=engine)
    generator = torch.Generator().manual_seed(1)
    for net in (model.student, model.teacher.model):
        for name, p in net.bbox_head.named_parameters():
            p.data.normal_(1.0 if 'scale' in name else 0.0, 0.1, generator=generator)
    return model


def compared(model, **options):
    """What the losses see in one step, level by level: student, teacher, extras; and the samples."""
    images, samples = batch(model, **options)
    seen, handles = [], []
    for loss in model.terms[0].losses:
        keep = lambda module, args, kwargs: seen.append((*args, kwargs))  # noqa: E731
        handles.append(loss.register_forward_pre_hook(keep, with_kwargs=True))
    model.loss(images, copy.deepcopy(samples))
    for handle in handles:
        handle.remove()
    return seen, images, samples


# ------------------------------------------------------------------------------------------------ the head by hand


def towers(head, maps, idx):
    """The features of both towers after ``idx`` convolutions, before the activation."""
    found = []
    for convs in (head.cls_convs, head.reg_convs):
        x = maps
        for i, conv in enumerate(convs[:idx]):
            x = F.conv2d(x if i == 0 else x.clamp(min=0), conv.conv.weight, conv.conv.bias, padding=1)
            x = conv.norm(x) if conv.with_norm else x
        found.append(x)
    return found


def statistics(maps):
    """Mean and standard deviation of each channel, channel by channel."""
    values = [
        [v for image in range(len(maps)) for v in maps[image, c].flatten().tolist()] for c in range(maps.shape[1])
    ]
    means = [sum(v) / len(v) for v in values]
    stds = [(sum((x - m) ** 2 for x in v) / (len(v) - 1)) ** 0.5 for v, m in zip(values, means)]
    return torch.tensor(means)[:, None, None], torch.tensor(stds)[:, None, None]


def rest(family, head, features, idx, level):
    """The maps that the head predicts from tower features before the activation; the head is in eval mode."""
    ends = []
    for convs, x in zip((head.cls_convs, head.reg_convs), features):
        x = x.clamp(min=0)
        for conv in convs[idx:]:
            x = F.conv2d(x, conv.conv.weight, conv.conv.bias, padding=1)
            x = (conv.norm(x) if conv.with_norm else x).clamp(min=0)
        ends.append(x)
    names = LAYERS[family]
    on_reg = family == 'atss' or getattr(head, 'centerness_on_reg', False)
    layers = [getattr(head, name) for name in names if name]
    maps = [
        F.conv2d(x, layer.weight, layer.bias, padding=1)
        for layer, x in zip(layers, (ends[0], ends[1], ends[1] if on_reg else ends[0]))
    ]
    if family != 'retina':
        maps[1] = maps[1] * head.scales[level].scale
    if family == 'fcos':
        maps[1] = maps[1].clamp(min=0) * (8, 16, 32)[level] if head.norm_on_bbox else maps[1].exp()
    return maps


def rows(family, head, maps, level):
    """Rows of a level, image by image, position by position, anchor by anchor; boxes decoded by their formulas."""
    stride = (8, 16, 32)[level]
    found = dict(cls=[], boxes=[], dist=[], centerness=[])
    anchors = 2 if family == 'retina' else 1
    base = [] if family == 'fcos' else head.prior_generator.base_anchors[level]
    images, _, height, width = maps[0].shape
    for b, y, x, a in torch.cartesian_prod(*(torch.arange(n) for n in (images, height, width, anchors))).tolist():
        found['cls'].append(maps[0][b, 3 * a : 3 * a + 3, y, x])
        size = maps[1].shape[1] // anchors
        offsets = maps[1][b, size * a : size * (a + 1), y, x]
        if family == 'gfl':
            found['dist'] += offsets.view(4, 5)
            offsets = (offsets.view(4, 5).softmax(1) * torch.arange(5.0)).sum(1) * stride
        if family == 'fcos':
            centre = torch.tensor([(x + 0.5) * stride, (y + 0.5) * stride])
        else:
            left, top, right, bottom = (base[a] + torch.tensor([x, y, x, y]) * stride).tolist()
            centre = torch.tensor([(left + right) / 2, (top + bottom) / 2])
        if family in ('fcos', 'gfl'):
            box = torch.cat((centre - offsets[:2], centre + offsets[2:]))
        else:
            stds = torch.tensor([0.1, 0.1, 0.2, 0.2] if family == 'atss' else [1.0] * 4)
            offsets, sides = offsets * stds, torch.tensor([right - left, bottom - top])
            most = math.log(1000 / 16)  # where mmdet stops
            centre, sides = centre + offsets[:2] * sides, sides * offsets[2:].clamp(-most, most).exp()
            box = torch.cat((centre - sides / 2, centre + sides / 2))
        found['boxes'].append(box)
        if len(maps) > 2:
            found['centerness'].append(maps[2][b, 0, y, x])
    return {name: torch.stack(values) for name, values in found.items() if values}


@pytest.mark.parametrize(
    'family, idx, head',
    [
        ('retina', 1, {}),
        ('retina', 3, {}),
        ('gfl', 2, {}),
        ('atss', 2, {}),
        ('fcos', 1, {}),
        ('fcos', 2, dict(norm_on_bbox=True, centerness_on_reg=True)),
    ],
)
def test_equals_the_head_by_hand(family, idx, head):
    model = build(family, idx, **head)
    seen, images, _ = compared(model)
    ours, theirs = model.student.bbox_head, model.teacher.model.bbox_head
    assert len(seen) == 3
    with torch.no_grad():
        pyramid, teacher_pyramid = model.student.extract_feat(images), model.teacher.model.extract_feat(images)
        for level, (student, teacher, _) in enumerate(seen):
            mine, its = towers(ours, pyramid[level], idx), towers(theirs, teacher_pyramid[level], idx)
            crossed = []
            for m, t in zip(mine, its):
                (m_mean, m_std), (t_mean, t_std) = statistics(m), statistics(t)
                crossed.append((m - m_mean) / (m_std + 1e-6) * t_std + t_mean)
            for found, features in ((student, crossed), (teacher, its)):
                expected = rows(family, theirs, rest(family, theirs, features, idx, level), level)
                assert set(found) == set(expected)
                for name, value in expected.items():
                    torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)
            assert (student['cls'] - teacher['cls']).abs().max() > 0.05  # two different networks were compared


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('idx', [0, 1, 3])
def test_a_copy_of_the_teacher_predicts_the_same(family, idx):
    model = build(family, idx, eps=0.0)
    model.student.load_state_dict(model.teacher.model.state_dict())
    seen, images, samples = compared(model)
    for student, teacher, _ in seen:
        for name in teacher:
            torch.testing.assert_close(student[name], teacher[name], rtol=1e-3, atol=1e-3)
    losses = model.loss(images, samples)
    assert losses['loss_cross_cls'].item() < 1e-5 and losses['loss_cross_reg'].item() < 1e-3


# --------------------------------------------------------------------------------------------------------- gradients


def test_gradient_ends_in_the_students_first_convolutions():
    """The student's own later layers have no part in it, and the teacher's get nothing."""
    model = build('fcos', idx=2)
    images, samples = batch(model)
    losses = model.loss(images, samples)
    total({k: v for k, v in losses.items() if 'cross' in k}).backward()
    head = model.student.bbox_head
    reached = [p.grad is not None for conv in (*head.cls_convs[:2], *head.reg_convs[:2]) for p in conv.parameters()]
    assert reached and all(reached)
    beyond = [*head.cls_convs[2:], *head.reg_convs[2:], head.conv_cls, head.conv_reg, head.conv_centerness, head.scales]
    assert all(p.grad is None for module in beyond for p in module.parameters())
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.model.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.student.backbone.layer1.parameters())


def test_gradient_flows_through_the_statistics():
    """A change of scale and shift of the student's channels is no change at all."""
    torch.manual_seed(0)
    student = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: match_statistics(x, teacher), (student,))
    (gradient,) = torch.autograd.grad(
        (match_statistics(student, teacher, 0.0) * torch.randn_like(student)).sum(), student
    )
    assert gradient.abs().max() > 0.1
    assert gradient.sum((0, 2, 3)).abs().max() < 1e-12
    assert (gradient * student.detach()).sum((0, 2, 3)).abs().max() < 1e-12


@pytest.mark.parametrize('size', [(1, 4, 1, 1), (2, 4, 3, 3)])
def test_constant_channels_are_finite(size):
    student, teacher = torch.full(size, 0.3, requires_grad=True), torch.randn(size)
    found = match_statistics(student, teacher)
    found.sum().backward()
    assert torch.isfinite(found).all() and torch.isfinite(student.grad).all()
    torch.testing.assert_close(found, teacher.mean((0, 2, 3), keepdim=True).expand(size), rtol=0, atol=0.2)


# ------------------------------------------------------------------------------------------------------- assignment


def test_rows_belong_to_the_students_targets():
    """A teacher that moves no anchor predicts the anchors; those that are objects have the objects' labels."""
    model = build('retina')
    nn.init.zeros_(model.teacher.model.bbox_head.retina_reg.weight)
    nn.init.zeros_(model.teacher.model.bbox_head.retina_reg.bias)
    images, samples = batch(model)
    anchors = model.student.bbox_head.prior_generator.grid_priors([(8, 12), (4, 6), (2, 3)], device='cpu')
    places = [(0, 0, 61, 1), (0, 1, 20, 2), (1, 0, 70, 0), (1, 0, 127, 2)]  # image, level, anchor, label
    for image, sample in enumerate(samples):
        mine = [place for place in places if place[0] == image]
        instances = type(sample.gt_instances)()
        instances.bboxes = torch.stack([anchors[level][index] for _, level, index, _ in mine])
        instances.labels = torch.tensor([label for *_, label in mine])
        sample.gt_instances = instances
    seen = []
    for loss in model.terms[0].losses:
        loss.register_forward_pre_hook(lambda module, args, kwargs: seen.append((*args, kwargs)), with_kwargs=True)
    model.loss(images, samples)
    for image, level, index, label in places:
        _, teacher, extras = seen[level]
        row = image * len(anchors[level]) + index
        torch.testing.assert_close(teacher['boxes'][row], anchors[level][index])
        assert extras['labels'][row] == label and extras['label_weights'][row] == 1
    for level, (_, teacher, extras) in enumerate(seen):
        positive = (extras['labels'] < 3).nonzero()[:, 0]
        for row in positive.tolist():
            instances = samples[row // len(anchors[level])].gt_instances
            iou = bbox_overlaps(teacher['boxes'][row : row + 1], instances.bboxes)[0]
            assert extras['labels'][row] in instances.labels[iou > 0.3]


def test_padding_weighs_nothing_and_totals_are_right():
    model = build('retina')
    seen, _, samples = compared(model, sizes=((64, 96), (32, 64)), boxes=(2, 1))
    extras = [entry[2] for entry in seen]
    outside = [(extra['label_weights'] == 0) for extra in extras]
    # Beyond the second image's 32 x 64 pixels: 96 - 32 cells of stride 8, 24 - 8 of 16, 6 - 2 of 32, two anchors each.
    assert all(int(o[len(o) // 2 :].sum()) >= n for o, n in zip(outside, (128, 32, 8)))
    for (_, teacher, extra), zero in zip(seen, outside):
        assert not extra['scores'][zero].any() and (extra['scores'][~zero] > 0).all()
        expected = torch.stack([row.sigmoid().max() for row in teacher['cls'][~zero]])
        torch.testing.assert_close(extra['scores'][~zero], expected)
    positives = sum(int((extra['labels'] < 3).sum()) for extra in extras)
    score_sum = sum(extra['scores'].sum() for extra in extras)
    for extra in extras:
        assert extra['avg_factor'] == positives > 0
        torch.testing.assert_close(extra['score_sum'], score_sum)


def test_fcos_counts_centerness_as_its_own_loss_does():
    model = build('fcos')
    head, seen_factors = model.student.bbox_head, []
    spy = head.loss_bbox.register_forward_pre_hook(
        lambda module, args, kwargs: seen_factors.append(kwargs['avg_factor']), with_kwargs=True
    )
    seen, _, _ = compared(model, sizes=((128, 192), (96, 96)), boxes=(3, 2))
    spy.remove()
    assert seen_factors[-1] > 1
    torch.testing.assert_close(seen[0][2]['avg_factor'], torch.as_tensor(seen_factors[-1]))
    assert (seen[0][2]['label_weights'] == 1).all()


def test_no_objects():
    for family in ('retina', 'fcos'):
        model = build(family)
        seen, images, samples = compared(model, boxes=(0, 0))
        assert all(
            value.isfinite() for value in model.loss(images, samples).values() if isinstance(value, torch.Tensor)
        )
        assert seen[0][2]['avg_factor'] >= 1 and (seen[0][2]['labels'] == 3).all()


# --------------------------------------------------------------------------------------------------- the teacher's head


def forwards(model):
    return [name for name, module in model.teacher.model.named_modules() if 'forward' in module.__dict__]


def test_the_teachers_head_is_as_before_even_after_an_error():
    model = build('retina', idx=2)
    images, samples = batch(model)
    expected = model.loss(images, copy.deepcopy(samples))['loss_cross_cls']
    assert forwards(model) == []
    layer = model.teacher.model.bbox_head.retina_cls
    calls = []

    def fail(module, args):
        calls.append(0)
        if len(calls) == 5:  # the second level of the crossing features; the teacher's own three went before
            assert forwards(model)
            raise RuntimeError('broken on purpose')

    handle = layer.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match='on purpose'):
        model.loss(images, copy.deepcopy(samples))
    handle.remove()
    assert forwards(model) == []
    assert torch.equal(model.loss(images, copy.deepcopy(samples))['loss_cross_cls'], expected)


def test_replaced_forward_puts_another_replacement_back():
    conv = nn.Conv2d(1, 1, 1)
    other = lambda x: x + 1  # noqa: E731
    conv.forward = other
    x = torch.zeros(1, 1, 2, 2)
    with replaced_forward({conv: lambda x: x + 2}):
        assert conv(x).eq(2).all()
    assert conv.forward is other and conv(x).eq(1).all()


def test_teacher_stays_in_eval_mode():
    """Batch norm in its towers keeps its statistics while the student trains."""
    cfg = config('retina', norm_cfg=dict(type='BN'))
    model = build('retina', teacher=cfg, student=config('retina'), engine=AS_LOADED)
    before = {k: v.clone() for k, v in model.teacher.model.bbox_head.state_dict().items()}
    seen, images, _ = compared(model)
    assert all(torch.equal(v, before[k]) for k, v in model.teacher.model.bbox_head.state_dict().items())
    theirs = model.teacher.model
    expected = theirs.bbox_head(theirs.extract_feat(images))[0][1].permute(0, 2, 3, 1).reshape(-1, 3)
    torch.testing.assert_close(seen[1][1]['cls'], expected)


# ------------------------------------------------------------------------------------------------------ combinations


@pytest.mark.parametrize('idx, keys', [(0, {'maps'}), (2, {'cls', 'reg'})])
def test_narrow_students_are_widened(idx, keys):
    student = config('gfl', feat_channels=8, in_channels=8)
    student['neck']['out_channels'] = 8
    model = build('gfl', idx, student=student, teacher=config('gfl'))
    align = model.terms[0].adapter.align
    assert set(align) == keys and all(conv.weight.shape == (16, 8, 1, 1) for conv in align.values())
    assert 'distill.cross.adapter.align.' in ' '.join(model.state_dict())
    assert '1x1 8→16' in model.plan.table()
    images, samples = batch(model)
    losses = model.loss(images, samples)
    total({k: v for k, v in losses.items() if 'cross' in k}).backward()
    assert all(conv.weight.grad.any() for conv in align.values())


def test_another_family_with_the_same_anchors():
    """Boxes are the teacher's alone, so that only classes, anchors and strides have to agree."""
    model = build('gfl', student=config('atss'), teacher=config('gfl'))
    seen, images, samples = compared(model)
    assert set(seen[0][0]) == {'cls', 'boxes', 'dist'}
    losses = model.loss(images, samples)
    assert losses['loss_cross_cls'] > 0 and losses['loss_cross_reg'] > 0


def test_a_head_that_nobody_wrote_code_for():
    """RTMDet: other activations, other predicting layers, distances from points."""
    cfg = config('fcos')
    cfg['bbox_head'] = dict(
        type='RTMDetHead', num_classes=3, in_channels=16, feat_channels=16, stacked_convs=2, with_objectness=False,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]), act_cfg=dict(type='SiLU'),
        bbox_coder=dict(type='DistancePointBBoxCoder'), loss_bbox=dict(type='GIoULoss'), norm_cfg=dict(type='BN'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0),
    )  # fmt: skip
    train_cfg = dict(assigner=dict(type='DynamicSoftLabelAssigner', topk=3), allowed_border=-1, pos_weight=-1)
    model = build('fcos', 1, eps=0.0, teacher=dict(cfg, type='RTMDet', train_cfg=train_cfg))
    model.student.load_state_dict(model.teacher.model.state_dict())
    model.student.eval()  # batch norm as in the teacher
    for student, teacher, _ in compared(model)[0]:
        assert set(teacher) == {'cls', 'boxes'}
        for name in teacher:
            torch.testing.assert_close(student[name], teacher[name], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize('kind', ['autocast', 'bfloat16'])
def test_narrow_numbers(kind):
    model = build('fcos', norm_on_bbox=True)
    images, samples = batch(model)
    expected = model.loss(images, copy.deepcopy(samples))
    if kind == 'bfloat16':
        model.bfloat16()
        images = images.bfloat16()
    with torch.autocast('cpu', torch.bfloat16, enabled=kind == 'autocast'):
        losses = model.loss(images, samples)
    for name in ('loss_cross_cls', 'loss_cross_reg'):
        assert losses[name].dtype == torch.float32
        torch.testing.assert_close(losses[name], expected[name], rtol=0.2, atol=0.02)


@pytest.mark.parametrize('kind', ['named', 'mean'])
def test_other_kinds_of_teachers(kind):
    """One of two teachers, which read the head at different places, and the student's own average."""
    one = dict(config=config('retina'), checkpoint=None)
    terms = {'cross': term(2)['cross']}
    if kind == 'named':
        terms = {name: term(idx, teacher=f'{name}:bbox_head')['cross'] for name, idx in (('big', 1), ('other', 2))}
    teacher = dict(big=one, other=copy.deepcopy(one)) if kind == 'named' else dict(ema=True)
    torch.manual_seed(0)
    cfg = dict(type='kd_det.DistillDetector', student=config('retina'), teacher=teacher, distill=terms)
    model = MODELS.build(cfg)
    model.init_weights()
    model.train()
    for name, net in model.teachers.items():
        if kind == 'mean':
            net.follow(model.student)
        assert model.distill[name or 'cross'].adapter.teacher_net.module is net.model
    images, samples = batch(model)
    losses = model.loss(images, samples)
    total(losses).backward()
    assert all((losses[f'loss_{name}_cls'] > 0.01) == (kind == 'named') for name in terms)
    assert all(p.grad is None for net in model.teachers.values() for p in net.model.parameters())


def test_copies_of_the_distiller_use_the_same_teacher():
    model = build('retina')
    twin = copy.deepcopy(model)
    adapter = twin.terms[0].adapter
    assert adapter.student_net.module is twin.student and adapter.teacher_net.module is model.teacher.model
    assert not any('teacher' in key for key in model.state_dict())


def test_plan_names_what_is_compared():
    table = build('gfl', idx=2).plan.table()
    assert 'bbox_head@in[0] cls 384x3, dist 1536x5, boxes 384x4' in table
    assert 'rest of the head after 2 convolutions' in table


# ------------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    'student, teacher, options, message',
    [
        (
            config('retina'),
            config('retina'),
            dict(idx=4),
            r'idx: found 4, but cls_convs of the student \(RetinaHead\) has 3',
        ),
        (
            config('retina', 1),
            config('retina'),
            dict(idx=2),
            r'idx: found 2, but cls_convs of the student \(RetinaHead\) has 1',
        ),
        (ssd(), ssd(), {}, r'cross\.student: SSDHead is no dense head with sigmoid scores'),
        (config('retina', num_classes=4), config('retina'), {}, 'student has 4 classes, the teacher 3'),
        (config('atss'), config('retina'), {}, r'other anchors or points.*same scales, ratios and strides'),
        (config('fcos'), config('atss'), {}, r'other anchors or points'),
        (config('retina'), config('retina'), dict(teacher='bbox_head[0]'), r'teacher: found.*expected the whole head'),
        (config('retina'), config('retina'), dict(student='neck'), 'FPN is no dense head with sigmoid scores'),
        (config('retina'), config('retina'), dict(idx=-1), r'adapter\.idx: found -1'),
        (
            config('retina', loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False)),
            config('retina', loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False)),
            {},
            r'cross\.student: RetinaHead is no dense head with sigmoid scores',
        ),
    ],
)
def test_errors(student, teacher, options, message):
    with pytest.raises(ConfigError, match=message):
        distiller(student, teacher, term(**options), init=False)


def test_levels_of_another_size():
    student = config('atss')
    student['neck'].update(start_level=0, end_level=2)
    student['bbox_head']['anchor_generator'] = dict(student['bbox_head']['anchor_generator'], strides=[4, 8, 16])
    with pytest.raises(ConfigError, match=r'level 0 measures \(32, 48\) in the student and \(16, 24\) in the teacher'):
        distiller(student, config('atss'), term(), init=False)


def test_own_head_is_no_teacher():
    with pytest.raises(ConfigError, match="student's own head cannot be its teacher"):
        distiller(config('retina'), config('retina'), term(teacher='student:bbox_head'), init=False)


def test_heads_that_look_past_their_towers_are_refused(monkeypatch):
    from mmdet.models import RetinaHead

    plain = RetinaHead.forward_single

    def peeks(self, x):
        scores, boxes = plain(self, x)
        return scores + x.mean(1, keepdim=True) + 1e-2 * x.square().mean(), boxes

    monkeypatch.setattr(RetinaHead, 'forward_single', peeks)
    with pytest.raises(ConfigError, match=r'RetinaHead; expected a head of two towers'):
        distiller(config('retina'), config('retina'), term(idx=2), init=False)
