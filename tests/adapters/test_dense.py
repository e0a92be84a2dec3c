"""Dense heads as rows, compared with what mmdet's own heads hand to their class loss, and with slow loops."""

import copy

import pytest
import torch
from tiny_families import yolox
from tiny_models import atss, batch, distiller, fcos, gfl, retina, ssd

from kd_det.adapters import DenseRows
from kd_det.adapters.dense import assignment_reader
from kd_det.errors import ConfigError
from kd_det.registry import MODELS


def rtmdet(**parts):
    cfg = fcos(**parts)
    head = dict(
        type='RTMDetHead', num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1, with_objectness=False,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0), loss_bbox=dict(type='GIoULoss'),
        norm_cfg=None, act_cfg=dict(type='ReLU'),
    )  # fmt: skip
    train_cfg = dict(assigner=dict(type='DynamicSoftLabelAssigner', topk=3), allowed_border=-1, pos_weight=-1)
    return dict(cfg, type='RTMDet', bbox_head=head, train_cfg=train_cfg)


FAMILIES = dict(retina=retina, fcos=fcos, atss=atss, gfl=gfl, rtmdet=rtmdet)


class Seen(torch.nn.Module):
    """A loss that keeps what it was given."""

    def forward(self, student, teacher, labels=None, label_weights=None, avg_factor=None):
        self.got = {name: value for name, value in locals().items() if name not in ('self', '__class__')}
        return student.sum() * 0.0


@pytest.fixture(autouse=True)
def seen():
    MODELS.register_module(name='SeenForDense', module=Seen, force=True)
    yield
    MODELS.module_dict.pop('SeenForDense')


def term(tap='bbox_head[0]', **options):
    adapter = dict(type='kd_det.DenseRows', **options)
    return dict(student=tap, teacher=tap, adapter=adapter, loss=dict(type='kd_det.SeenForDense'))


def spy_on_class_loss(head, images):
    """Notes what the head hands to its class loss: predictions, labels, weights, in the order of DenseRows."""
    calls = []

    def keep(module, args, kwargs):
        calls.append((args, kwargs))

    handle = head.loss_cls.register_forward_pre_hook(keep, with_kwargs=True)

    def found():
        handle.remove()
        if len(calls) == 1:  # FCOS: all levels at once
            (pred, labels), kwargs = calls[0]
            sizes = [images * h * w for h, w in head.sizes]
            levels = [(p, y, None, kwargs['avg_factor']) for p, y in zip(pred.split(sizes), labels.split(sizes))]
        else:
            levels = []
            for args, kwargs in calls:
                labels = args[1][0] if isinstance(args[1], tuple) else args[1]
                weights = args[2] if len(args) > 2 else kwargs['weight']
                levels.append((args[0], labels, weights, kwargs['avg_factor']))
        rows = []
        for image in range(images):
            for pred, labels, weights, _ in levels:
                n = len(labels) // images
                part = slice(image * n, (image + 1) * n)
                rows.append((pred[part], labels[part], torch.ones(n) if weights is None else weights[part]))
        return [torch.cat(column) for column in zip(*rows)], float(levels[0][3])

    return found


@pytest.mark.parametrize('family', FAMILIES)
def test_rows_are_what_the_head_hands_to_its_class_loss(family):
    """Rows, labels, weights and normaliser, on images of different size; the foreground alone, and all rows."""
    cfg = FAMILIES[family]()
    terms = dict(all=term(select='all', normalize='positives'), fg=term())
    model = distiller(cfg, cfg, terms)
    inputs, samples = batch(model, sizes=[(64, 96), (60, 70)], boxes=(2, 2))
    head = model.student.bbox_head
    head.sizes = [(8, 12), (4, 6), (2, 3)]
    found = spy_on_class_loss(head, 2)
    model.loss(inputs, samples)
    (pred, labels, weights), avg_factor = found()
    everything, assigned = (t.losses[0].got for t in model.terms)
    assert torch.equal(everything['student'], pred)
    assert torch.equal(everything['labels'], labels)
    assert torch.equal(everything['label_weights'], weights.to(everything['label_weights']))
    foreground = (labels >= 0) & (labels < 3)
    assert foreground.sum() > 2
    if family != 'rtmdet':  # which divides by the sum of its soft labels
        assert avg_factor == float(everything['avg_factor'])
    assert float(everything['avg_factor']) == float(assigned['avg_factor']) == foreground.sum()
    assert torch.equal(assigned['student'], pred[foreground])
    assert torch.equal(assigned['labels'], labels[foreground])
    with torch.no_grad():
        maps = model.teacher.model(inputs, samples, mode='tensor')[0]
    slow = [
        level[image, 3 * anchor : 3 * anchor + 3, y, x]
        for image in range(2)
        for level in maps
        for y in range(level.shape[2])
        for x in range(level.shape[3])
        for anchor in range(level.shape[1] // 3)
    ]
    torch.testing.assert_close(everything['teacher'], torch.stack(slow))
    assert torch.equal(assigned['teacher'], everything['teacher'][foreground])


def test_soft_max_heads_keep_their_background_column_last():
    model = distiller(ssd(), ssd(), dict(fg=term(), sure=term(select='confident', score_thr=0.2)))
    model.loss(*batch(model))
    fg, sure = (t.losses[0].got for t in model.terms)
    assert fg['student'].shape[1] == 4 and len(fg['labels']) and bool((fg['labels'] < 3).all())
    scores, best = sure['teacher'].softmax(1)[:, :3].max(1)
    assert bool((scores > 0.2).all()) and torch.equal(sure['labels'], best)


@pytest.mark.parametrize('family', ['retina', 'fcos'])
@pytest.mark.parametrize('topk', [None, 5])
def test_confident_rows_by_a_loop(family, topk):
    """Rows above the threshold, at most ``topk`` an image, divided by the sum of their scores."""
    cfg = FAMILIES[family]()
    chosen = term(select='confident', score_thr=0.5, topk=topk)
    model = distiller(cfg, cfg, dict(sure=chosen, all=term(select='all')))
    teacher = model.teacher.model
    with torch.no_grad():
        for p in teacher.bbox_head.parameters():
            p.add_(torch.randn_like(p) * 0.05)  # scores that differ
        for p in (teacher.bbox_head.retina_cls if family == 'retina' else teacher.bbox_head.conv_cls).parameters():
            p.copy_(torch.randn_like(p) * 0.2)
    assert 'targets' not in model.terms[0].input_taps and 'targets' not in model.terms[1].input_taps
    model.loss(*batch(model))
    sure, everything = (t.losses[0].got for t in model.terms)
    assert 'labels' in sure and everything['labels'] is None
    rows = everything['teacher'].view(2, -1, 3)
    kept, best = [], []
    for image in rows:
        ranked = sorted(((float(row.sigmoid().max()), i) for i, row in enumerate(image)), reverse=True)
        allowed = {i for score, i in ranked[: topk or len(ranked)] if score > 0.5}
        kept += [image[i] for i in sorted(allowed)]
        best += [int(image[i].argmax()) for i in sorted(allowed)]
    assert 2 <= len(kept) < len(everything['teacher'])
    assert topk is None or len(kept) <= 2 * topk
    assert torch.equal(sure['teacher'], torch.stack(kept)) and sure['labels'].tolist() == best
    assert float(sure['avg_factor']) == pytest.approx(max(1.0, sum(float(r.sigmoid().max()) for r in kept)))
    total = float(everything['teacher'].sigmoid().amax(1).sum())
    assert float(everything['avg_factor']) == pytest.approx(max(1.0, total))


def test_images_without_objects_give_a_zero_that_hangs_on_the_student():
    cfg = retina()
    kd = dict(term(), loss=dict(type='kd_det.KDLoss', use_sigmoid=True))
    model = distiller(cfg, cfg, dict(kd=kd))
    losses = model.loss(*batch(model, boxes=(0, 0)))
    assert losses['loss_kd'].item() == 0
    losses['loss_kd'].backward()
    gradient = model.student.bbox_head.retina_cls.weight.grad
    assert gradient is not None and not gradient.any()


@pytest.mark.parametrize('options', [dict(), dict(select='confident', score_thr=0.001), dict(select='all')])
def test_two_processes_of_one_image_are_one_of_two(options, monkeypatch):
    """What DDP averages over the processes is the loss of the whole batch, since all divide by the mean number."""
    cfg = retina()
    kd = dict(term(**options), loss=dict(type='kd_det.KDLoss', use_sigmoid=True))
    model = distiller(cfg, retina(base=16), dict(kd=kd))
    inputs, samples = batch(model, boxes=(3, 1))
    whole = model.loss(inputs, samples)['loss_kd']

    def number(inputs, samples):
        noted = []
        monkeypatch.setattr('kd_det.adapters.dense.all_reduce', lambda value, op: noted.append((value.clone(), op)))
        model.loss(inputs, samples)
        return noted[0]

    numbers = [number(inputs[i : i + 1], samples[i : i + 1]) for i in range(2)]
    assert [op for _, op in numbers] == ['mean', 'mean'] and numbers[0][0] != numbers[1][0]
    mean = (numbers[0][0] + numbers[1][0]) / 2
    monkeypatch.setattr('kd_det.adapters.dense.all_reduce', lambda value, op: value.copy_(mean))
    parts = [model.loss(inputs[i : i + 1], samples[i : i + 1])['loss_kd'] for i in range(2)]
    assert mean > 1 and whole > 0
    torch.testing.assert_close((parts[0] + parts[1]) / 2, whole)


def test_heads_are_known_by_the_class_that_assigns():
    from mmdet.models.dense_heads import AutoAssignHead, FreeAnchorRetinaHead, LDHead, PAAHead, VFNetHead, YOLOFHead

    known = {cls: assignment_reader(object.__new__(cls)) is not None
             for cls in (LDHead, FreeAnchorRetinaHead, PAAHead, VFNetHead, YOLOFHead, AutoAssignHead)}  # fmt: skip
    assert known == {
        LDHead: True, FreeAnchorRetinaHead: True, PAAHead: False, VFNetHead: False, YOLOFHead: False,
        AutoAssignHead: False,
    }  # fmt: skip


def test_an_assignment_that_cannot_be_read_is_refused_with_advice():
    paa = atss()
    paa = dict(paa, type='PAA', bbox_head=dict(paa['bbox_head'], type='PAAHead'))
    paa['train_cfg'] = dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.1, neg_iou_thr=0.1, min_pos_iou=0, ignore_iof_thr=-1),
        allowed_border=-1, pos_weight=-1,
    )  # fmt: skip
    with pytest.raises(
        ConfigError, match=r"distill.a.adapter: select='assigned'.*PAAHead.*expected select='confident'"
    ):
        distiller(paa, paa, dict(a=term()), init=False)
    distiller(paa, paa, dict(a=term(select='confident')), init=False)


@pytest.mark.parametrize(
    'options, says',
    [
        (dict(select='assignd'), r"adapter.select: found 'assignd', expected one of 'assigned'.*Nearest: 'assigned'"),
        (dict(normalize='sum'), "adapter.normalize: found 'sum', expected one of 'positives', 'scores'"),
        (dict(select='confident', topk=0), 'adapter.topk: found 0'),
    ],
)
def test_unknown_choices_are_refused(options, says):
    with pytest.raises(ConfigError, match=says):
        DenseRows(**options)


def test_other_layouts_are_refused():
    more = retina()
    more['bbox_head'] = dict(copy.deepcopy(more['bbox_head']))
    more['bbox_head']['anchor_generator']['ratios'] = [0.5, 1.0, 2.0]
    with pytest.raises(ConfigError, match=r'distill.a: level 0 of the heads.*the same anchors and the same strides'):
        distiller(retina(), more, dict(a=term()), init=False)
    with pytest.raises(ConfigError, match=r'distill.a: RetinaHead has class scores 3, RetinaHead 5; expected the same'):
        distiller(retina(), retina(classes=5), dict(a=term()), init=False)
    with pytest.raises(ConfigError, match=r'distill.a: the heads have 3 and 2 levels'):
        distiller(retina(), retina(), dict(a=dict(term(), teacher='bbox_head[0][0:2]')), init=False)
    with pytest.raises(ConfigError, match=r"distill.a.student: 'neck' is not in a dense head; expected a tap such as"):
        distiller(retina(), retina(), dict(a=term('neck', select='all')), init=False)
    with pytest.raises(ConfigError, match=r'labels of \[.*\] rows per level; expected \[384, 96\]'):
        distiller(gfl(), gfl(), dict(a=term('bbox_head[0][0:2]')), init=False)


@pytest.mark.parametrize('select', ['assigned', 'confident', 'all'])
def test_scores_that_are_no_logits_are_refused(select):
    """YOLOX multiplies by its objectness, and has no ``get_targets``: the advice is not that a tap does not exist."""
    term = dict(
        student='bbox_head[0]', teacher='bbox_head[0]', loss=dict(type='kd_det.KDLoss', use_sigmoid=True),
        adapter=dict(type='kd_det.DenseRows', select=select, normalize='scores'),
    )  # fmt: skip
    with pytest.raises(ConfigError, match="YOLOXHead multiplies its class scores by an objectness.*'neck'"):
        distiller(yolox(), yolox(), dict(a=term))
    probabilities = retina()
    probabilities['bbox_head']['loss_cls'] = dict(type='QualityFocalLoss', use_sigmoid=True, activated=True)
    with pytest.raises(ConfigError, match='RetinaHead gives probabilities, no logits'):
        distiller(probabilities, retina(), dict(a=term))
