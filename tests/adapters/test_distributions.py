import math

import pytest
import torch
from mmdet.models.losses.iou_loss import diou_loss
from tiny_models import batch, build, distiller, gfl, retina

from kd_det.adapters import BoxDistributions
from kd_det.adapters.distributions import valuable_region
from kd_det.errors import ConfigError


def ld(adapter=None, **changes):
    adapter = dict(type='kd_det.BoxDistributions', **(adapter or {}))
    return dict(
        student='bbox_head[1]', teacher='bbox_head[1]', adapter=adapter, loss=dict(type='kd_det.LDLoss'), **changes
    )


def plain_iou(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def plain_region(anchors, sizes, boxes, topk, gamma):
    """The definition, anchor by anchor; DIoU from mmdet's loss."""
    values = [0.0] * len(anchors)
    for box in boxes.tolist():
        overlaps = [plain_iou(anchor, box) for anchor in anchors.tolist()]
        candidates, start = [], 0
        for size in sizes:
            level = range(start, start + size)
            centre = lambda x: ((x[0] + x[2]) / 2, (x[1] + x[3]) / 2)  # noqa: E731
            nearest = sorted(level, key=lambda i: math.dist(centre(anchors[i].tolist()), centre(box)))
            candidates += [overlaps[i] for i in nearest[:topk]]
            start += size
        mean = sum(candidates) / len(candidates)
        threshold = mean + math.sqrt(sum((x - mean) ** 2 for x in candidates) / (len(candidates) - 1))
        for i, anchor in enumerate(anchors):
            diou = 1 - float(diou_loss(anchor[None], torch.tensor([box]).to(anchor), reduction='none'))
            if gamma * threshold <= diou < threshold:
                values[i] = max(values[i], overlaps[i])
    return torch.tensor(values, dtype=anchors.dtype)


def pyramid(size=64, strides=(8, 16, 32)):
    levels = []
    for stride in strides:
        centres = torch.arange(stride / 2, size, stride, dtype=torch.float64)
        y, x = torch.meshgrid(centres, centres, indexing='ij')
        centre = torch.stack([x, y], -1).flatten(0, 1)
        levels.append(torch.cat([centre - 2 * stride, centre + 2 * stride], 1))
    return torch.cat(levels), [len(level) for level in levels]


@pytest.mark.parametrize('topk, gamma', [(9, 0.25), (3, 0.0), (9, 0.75), (100, 0.5)])
def test_region_is_the_definition(topk, gamma):
    generator = torch.Generator().manual_seed(topk)
    anchors, sizes = pyramid()
    corner = torch.rand(4, 2, generator=generator, dtype=torch.float64) * 37
    boxes = torch.cat([corner, corner + 9.5 + 17 * torch.rand(4, 2, generator=generator, dtype=torch.float64)], 1)
    found = valuable_region(anchors, sizes, boxes, topk, gamma)
    expected = plain_region(anchors, sizes, boxes, topk, gamma)
    assert (expected > 0).sum() > 5
    torch.testing.assert_close(found, expected)


def test_region_may_be_empty():
    anchors, sizes = pyramid()
    box = torch.tensor([[10.0, 12.0, 33.0, 30.0]], dtype=torch.float64)
    assert not valuable_region(anchors, sizes, box, gamma=1.0).any()
    assert valuable_region(anchors, sizes, box[:0]).shape == (len(anchors),)
    assert not valuable_region(anchors, sizes, box[:0]).any()
    assert valuable_region(anchors[:0], [0, 0, 0], box).shape == (0,)


def step(terms, student=None, teacher=None, **options):
    """A distiller and the losses of one batch, with what its only term saw."""
    model = distiller(student or gfl(), teacher or gfl(base=16, channels=24), dict(ld=terms))
    images, samples = batch(model, **options)
    seen = []
    model.terms[0].adapter.register_forward_hook(lambda module, args, pairs: seen.append((args, pairs)))
    losses = model.loss(images, samples)
    (readings, pairs) = seen[-1]
    return model, losses, readings[2], pairs


def test_positives_are_those_of_mmdets_ld_head():
    """mmdet has the first of the three parts: the same numbers from its own head on the same maps."""
    model, losses, _, _ = step(ld(dict(region=False, kd=False)))
    assert set(losses) >= {'loss_ld_ld'} and 'loss_ld_ld_vlr' not in losses and 'loss_ld_kd' not in losses
    cfg = gfl()
    cfg['bbox_head'].update(type='LDHead', loss_ld=dict(type='KnowledgeDistillationKLDivLoss', loss_weight=0.25, T=10))
    plain = build(dict(cfg, type='SingleStageDetector'))
    plain.load_state_dict(model.student.state_dict())
    images, samples = batch(model)
    with torch.no_grad():
        teacher = model.teacher.model
        parts = plain.bbox_head.loss(
            plain.extract_feat(images), teacher.bbox_head(teacher.extract_feat(images)), samples
        )
    expected = sum(parts['loss_ld'])
    assert expected > 0
    torch.testing.assert_close(losses['loss_ld_ld'].detach(), expected)


def test_region_and_scores_of_a_step():
    model, losses, context, pairs = step(ld(), boxes=(2, 0))
    assert set(losses) >= {'loss_ld_ld', 'loss_ld_ld_vlr', 'loss_ld_kd'}
    assert losses['loss_ld_ld_vlr'] > 0
    anchors = context['targets'][0]
    sizes = [level.shape[1] for level in anchors]
    topk = model.student.bbox_head.assigner.topk
    first = plain_region(torch.cat([level[0] for level in anchors]), sizes, context['gt_bboxes'][0], topk, 0.25)
    for level, (pair, expected) in enumerate(zip(pairs, first.split(sizes), strict=True)):
        extras = pair.extras
        value = torch.zeros(2 * sizes[level])
        value[extras['vlr_inds']] = extras['vlr_value']
        torch.testing.assert_close(value[: sizes[level]], expected)
        assert not value[sizes[level] :].any()  # the image without boxes
        labels = context['targets'][1][level].flatten()
        assert torch.equal(labels[extras['pos_inds']] < 3, torch.ones(len(extras['pos_inds']), dtype=torch.bool))
        assert len(extras['pos_inds']) == (labels < 3).sum()
        assert extras['cls_student'].shape == extras['cls_teacher'].shape == (2, 3, *pair.student.shape[2:])
    assert sum(len(pair.extras['pos_inds']) for pair in pairs) > 0


def test_no_boxes_at_all():
    _, losses, _, pairs = step(ld(), boxes=(0, 0))
    assert all(len(pair.extras[name]) == 0 for pair in pairs for name in ('pos_inds', 'vlr_inds', 'vlr_value'))
    parts = [losses[f'loss_ld_{name}'] for name in ('ld', 'ld_vlr', 'kd')]
    assert all(part == 0 and part.requires_grad for part in parts)


def test_ignored_anchors_have_no_value():
    student = gfl()
    student['train_cfg'] = dict(student['train_cfg'], allowed_border=0)
    _, _, context, pairs = step(ld(), student=student)
    for pair, weights in zip(pairs, context['targets'][2], strict=True):
        assert (weights.flatten()[pair.extras['vlr_inds']] > 0).all()
    assert 0 < sum(len(pair.extras['vlr_inds']) for pair in pairs)
    assert any((weights == 0).any() for weights in context['targets'][2])


def test_normalise_divides_as_gfl_does():
    model, published, context, pairs = step(ld())
    _, found, _, _ = step(ld(dict(normalise=True)))
    count = sum(
        pair.extras['cls_student'].permute(0, 2, 3, 1).flatten(0, 2)[pair.extras['pos_inds']].sigmoid().amax(1).sum()
        for pair in pairs
    )
    for name in ('loss_ld_ld', 'loss_ld_ld_vlr'):
        torch.testing.assert_close(found[name], published[name] / count.clamp(min=1))
    assert torch.equal(found['loss_ld_kd'], published['loss_ld_kd'])
    # With scores that count for more than 1 in sum, twice the same images give the same loss.
    adapter = model.terms[0].adapter
    adapter.normalise = True
    context['cls_student'] = [level + 5 for level in context['cls_student']]
    more = adapter([p.student for p in pairs], [p.teacher for p in pairs], context)
    assert more[0].extras['avg_factor'] > 1
    twice = lambda value: [torch.cat([level, level]) for level in value]  # noqa: E731
    double = adapter(
        twice([p.student for p in pairs]),
        twice([p.teacher for p in pairs]),
        dict(
            targets=(*(twice(part) for part in context['targets'][:5]), 0),
            gt_bboxes=context['gt_bboxes'] * 2,
            **{name: twice(context[name]) for name in ('cls_student', 'cls_teacher')},
        ),
    )
    for losses, single, doubled in zip(model.terms[0].losses, more, double, strict=True):
        one, two = (losses(p.student, p.teacher, **p.extras) for p in (single, doubled))
        assert all(torch.allclose(one[name], two[name]) for name in one)


def test_other_classes_distil_boxes_alone():
    with pytest.raises(ConfigError, match=r'distill.ld: the student has 3 classes, the teacher 5.*adapter.kd=False'):
        distiller(gfl(), gfl(classes=5), dict(ld=ld()))
    _, losses, _, _ = step(ld(dict(kd=False)), teacher=gfl(classes=5))
    assert losses['loss_ld_ld'] > 0 and losses['loss_ld_ld_vlr'] > 0


def head(**changes):
    cfg = gfl()
    cfg['bbox_head'].update(changes)
    return cfg


def test_errors():
    with pytest.raises(ConfigError, match=r'distill.ld: the student has reg_max=4, the teacher reg_max=8'):
        distiller(gfl(), head(reg_max=8), dict(ld=ld()))
    anchors = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[4, 8, 16])
    with pytest.raises(ConfigError, match='strides=.*expected the same, or their distributions mean different'):
        distiller(gfl(), head(anchor_generator=anchors), dict(ld=ld()))
    with pytest.raises(ConfigError, match=r'distill.ld.teacher: RetinaHead predicts no distributions'):
        distiller(gfl(), retina(), dict(ld=ld()))
    with pytest.raises(ConfigError, match=r"distill.ld.student: found 'bbox_head\[0\]', expected 'bbox_head\[1\]'"):
        distiller(gfl(), gfl(), dict(ld={**ld(), 'student': 'bbox_head[0]', 'teacher': 'bbox_head[0]'}))
    with pytest.raises(ConfigError, match=r'distill.ld.inputs.targets: expected .* found list of 3'):
        distiller(gfl(), gfl(), dict(ld=ld(inputs=dict(targets='bbox_head[0]'))))
    with pytest.raises(ConfigError, match='adapter.gamma: found 2'):
        BoxDistributions(gamma=2)
    with pytest.raises(ConfigError, match='adapter.topk: found 0'):
        BoxDistributions(topk=0)
