import itertools

import pytest
import torch
from tiny_models import batch, build, deformable, dino, distiller, retina

from kd_det.adapters import QueryRows
from kd_det.errors import ConfigError


def queries(tap='bbox_head[0]', loss='kd_det.QFLKDLoss', **adapter):
    return dict(student=tap, teacher=tap, adapter=dict(type='kd_det.QueryRows', **adapter), loss=dict(type=loss))


def adapter(student=None, teacher=None, tap='bbox_head[0]', **options):
    """The prepared adapter of a distiller (deep inside a real detector, with its own assigner)."""
    loss = 'kd_det.QFLKDLoss' if tap == 'bbox_head[0]' else 'mmdet.L1Loss'
    model = distiller(student or deformable(), teacher or deformable(base=16), dict(q=queries(tap, loss, **options)))
    return model, model.terms[0].adapter


def readings(own=4, others=3, layers=2, images=2, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def side(count):
        centre, size = torch.rand(2, layers, images, count, 2, generator=generator)
        boxes = torch.cat([0.2 + 0.6 * centre, 0.05 + 0.3 * size], -1)
        return torch.randn(layers, images, count, classes, generator=generator), boxes

    (scores_s, boxes_s), (scores_t, boxes_t) = side(own), side(others)
    return dict(scores_student=scores_s.requires_grad_(), boxes_student=boxes_s, scores_teacher=scores_t,
                boxes_teacher=boxes_t, image_sizes=[(64, 96)] * images)  # fmt: skip


def giou(a, b):
    """Of two boxes (cx, cy, w, h), from the definition."""
    a, b = ([x[0] - x[2] / 2, x[1] - x[3] / 2, x[0] + x[2] / 2, x[1] + x[3] / 2] for x in (a, b))
    area = lambda x: max(x[2] - x[0], 0) * max(x[3] - x[1], 0)  # noqa: E731
    inner = [max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])]
    overlap = area(inner) if inner[2] > inner[0] and inner[3] > inner[1] else 0
    union = area(a) + area(b) - overlap
    hull = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    return overlap / union - (hull - union) / hull


def cost(scores, box, label, target):
    """Deformable DETR's: focal 2, L1 5, GIoU 2."""
    p = float(scores[label].sigmoid())
    focal = 0.25 * (1 - p) ** 2 * -torch.log(torch.tensor(p)) - 0.75 * p**2 * -torch.log(torch.tensor(1 - p))
    return 2 * focal - 2 * giou(box.tolist(), target.tolist()) + 5 * float((box - target).abs().sum())


@pytest.mark.parametrize('own, others', [(5, 3), (3, 4)])
def test_hungarian_is_the_cheapest_of_all_matches(own, others):
    _, rows = adapter(topk=None)
    rows.num_queries = own
    context = readings(own, others)
    (pair,) = rows(context['scores_student'], context['scores_teacher'], context)
    found = [(int((context['scores_student'][-1, i] == s).all(1).nonzero()), int((context['scores_teacher'][-1, i] == t)
              .all(1).nonzero())) for i, s, t in zip(torch.arange(2).repeat_interleave(min(own, others)), pair.student,
                                                     pair.teacher, strict=True)]  # fmt: skip
    for image in range(2):
        scores, boxes = (context[f'{name}_student'][-1, image] for name in ('scores', 'boxes'))
        labels, targets = context['scores_teacher'][-1, image].argmax(-1), context['boxes_teacher'][-1, image]
        table = [[float(cost(s, b, k, t)) for k, t in zip(labels, targets)] for s, b in zip(scores.detach(), boxes)]
        count = min(own, others)
        matches = [
            list(zip(first, second))
            for first in itertools.combinations(range(own), count)
            for second in itertools.permutations(range(others), count)
        ]
        best = min(matches, key=lambda match: sum(table[s][t] for s, t in match))
        assert sorted(found[image * count : (image + 1) * count]) == sorted(best)


def test_extras_and_boxes():
    _, rows = adapter(topk=2)
    rows.num_queries = 4
    context = readings(4, 5)
    (pair,) = rows(context['scores_student'], context['scores_teacher'], context)
    assert pair.student.shape == pair.teacher.shape == (4, 3)
    confidence, labels = pair.teacher.sigmoid().max(-1)
    best = context['scores_teacher'][-1].sigmoid().amax(-1).sort(1, descending=True).values[:, :2]
    torch.testing.assert_close(confidence.view(2, 2).sort(1, descending=True).values, best)
    assert torch.equal(pair.extras['label_weights'], confidence) and torch.equal(pair.extras['weight'], confidence)
    assert torch.equal(pair.extras['labels'], labels)
    torch.testing.assert_close(pair.extras['avg_factor'], confidence.sum().clamp(min=1))
    pair.student.sum().backward()
    assert context['scores_student'].grad[-1].sum() == 12 and not context['scores_student'].grad[0].any()

    found = []
    for form in ('cxcywh', 'xyxy'):
        _, boxes = adapter(topk=2, tap='bbox_head[1]', box_format=form)
        boxes.num_queries = 4
        (other,) = boxes(context['boxes_student'], context['boxes_teacher'], context)
        torch.testing.assert_close(other.extras['weight'], confidence[:, None].expand(4, 4))
        found.append(other.teacher)
    cx, cy, w, h = found[0].unbind(-1)
    torch.testing.assert_close(found[1], torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1))


def test_index_takes_the_same_query():
    _, rows = adapter(
        match='index', topk=None, layers='all', student=deformable(layers=2), teacher=deformable(layers=2)
    )
    rows.num_queries = 4
    context = readings(4, 4)
    pairs = rows(context['scores_student'], context['scores_teacher'], context)
    assert len(pairs) == 2
    for layer, pair in enumerate(pairs):
        order = context['scores_teacher'][layer].amax(-1).argsort(1, descending=True)
        for side, rows_found in (('student', pair.student), ('teacher', pair.teacher)):
            scores = context[f'scores_{side}'][layer]
            expected = torch.stack([scores[i][order[i]] for i in range(2)]).flatten(0, 1)
            assert torch.equal(rows_found, expected)


def test_denoising_queries_are_left_out():
    model, rows = adapter(dino(), dino(base=16))
    context = readings(10, 10)
    (alone,) = rows(context['scores_student'], context['scores_teacher'], context)
    noise = readings(4, 1, seed=1)
    more = dict(context)
    for name in ('scores_student', 'boxes_student'):
        more[name] = torch.cat([noise[name], context[name]], 2)
    (found,) = rows(more['scores_student'], more['scores_teacher'], more)
    assert torch.equal(found.student, alone.student) and torch.equal(found.teacher, alone.teacher)
    # In a training step: mmdet's own split of what the head gives says which are left.
    head, splits, seen = model.student.bbox_head, [], []
    split = head.split_outputs
    head.split_outputs = lambda *args: splits.append(split(*args)) or splits[-1]
    rows.register_forward_hook(lambda module, args, pairs: seen.append((args[0], pairs[0])))
    assert model.loss(*batch(model))['loss_q'] > 0
    reading, pair = seen[-1]
    left = splits[0][0][-1]
    assert left.shape[1] == 10 < reading.shape[2]
    assert len(pair.student) == 20
    for image in range(2):
        own = pair.student[10 * image : 10 * (image + 1)]
        assert torch.equal(own, left[image])  # ten queries of the teacher for ten of the student's: all of them


def test_softmax_scores_leave_the_background_out():
    rows = QueryRows(topk=None)
    rows.use_sigmoid = False
    scores = torch.tensor([[1.0, 2.0, 9.0]])
    torch.testing.assert_close(rows._classes(scores), scores.softmax(-1)[:, :2])


def test_errors():
    with pytest.raises(ConfigError, match=r"adapter.match: found 'hungarain'.*'hungarian'"):
        QueryRows(match='hungarain')
    with pytest.raises(ConfigError, match='adapter.topk: found 0'):
        QueryRows(topk=0)
    with pytest.raises(ConfigError, match=r'distill.q: the student has 3 columns of sigmoid scores, the teacher 5'):
        adapter(teacher=deformable(classes=5))
    with pytest.raises(ConfigError, match=r'distill.q.student: found a RetinaHead, expected .* of a DETR-type head'):
        adapter(retina(), retina())
    with pytest.raises(ConfigError, match=r'distill.q.student: RetinaNet has no queries; expected a DETR'):
        QueryRows().bind(build(retina()), build(retina()), 'distill.q')
    with pytest.raises(ConfigError, match=r"found 'index', but the queries of student DINO are the encoder's best"):
        adapter(dino(), dino(), match='index')
    with pytest.raises(ConfigError, match='has 10 queries, the teacher 12'):
        adapter(teacher=deformable(num_queries=12), match='index')
    with pytest.raises(ConfigError, match="found 'all', but the student has 1 decoder layers, the teacher 2"):
        adapter(teacher=deformable(layers=2), layers='all')
    _, one = adapter(deformable(layers=2), deformable(layers=2))
    one.layers = 'all'
    one.student_net.module.decoder.num_layers = 6  # as DAB-DETR, whose head sees the last layer alone in evaluation
    with pytest.raises(ConfigError, match=r'DeformableDETR \(the student\) scores 2 of its 6 decoder layers'):
        one.prepare(*[torch.zeros(2, 1, 10, 3)] * 2, {}, 'distill.q')
    with pytest.raises(ConfigError, match="found 2 items .*, expected .*such as 'bbox_head"):
        adapter(tap='bbox_head')
    with pytest.raises(ConfigError, match=r"adapter.match: DeformableDETRHead has no assigner; expected match='index'"):
        adapter(deformable(train_cfg=None))
