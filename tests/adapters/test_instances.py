"""Instances: rows of boxes against mmdet's extractor and against maps whose means are known."""

import copy

import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, bbox_overlaps
from mmengine.structures import InstanceData
from tiny_models import AS_LOADED, batch, cascade, distiller, faster, fcos, retina, total

from kd_det.adapters import Instances
from kd_det.adapters.instances import _stride
from kd_det.errors import ConfigError
from kd_det.losses import CCLoss, CRDLoss, PKTLoss, RKDLoss, SPLoss

SIZE = (512, 640)
BOXES = [[10, 20, 22, 40], [100, 60, 340, 200], [30, 40, 500, 480], [200, 8, 260, 500], [300, 310, 380, 420]]


def pyramid(strides=(4, 8, 16, 32), channels=3, images=2, grad=False):
    return [torch.randn(images, channels, SIZE[0] // s, SIZE[1] // s, requires_grad=grad) for s in strides]


def ramps(strides, images=1):
    """Maps with the pixel coordinates (x, y) of their cells' centres: the mean over a box is its own centre."""
    levels = []
    for s in strides:
        y, x = ((torch.arange(side // s) + 0.5) * s for side in SIZE)
        levels.append(torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x)))).repeat(images, 1, 1, 1))
    return levels


def context(*boxes, size=SIZE, ids=True, ignored=None, **options):
    boxes = [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for b in boxes]
    labels, samples, number = [], [], 0
    for own in boxes:
        labels.append(torch.arange(len(own)) % 3)
        instances = InstanceData(bboxes=own, labels=labels[-1])
        if ids:
            instances.instance_ids = torch.arange(number, number + len(own)) + 100
            number += len(own)
        sample = DetDataSample(metainfo=dict(img_shape=size), gt_instances=instances)
        if ignored is not None:
            sample.ignored_instances = InstanceData(bboxes=torch.tensor(ignored, dtype=torch.float32))
        samples.append(sample)
    return dict(
        gt_bboxes=boxes, gt_labels=labels, image_sizes=[size] * len(boxes), batch_input_shape=SIZE,
        data_samples=samples, **options,
    )  # fmt: skip


def made(student, teacher, same_channels=False, **options):
    adapter = Instances(**options)
    adapter.prepare(student, teacher, context(BOXES[:2]), 'distill.x', same_channels)
    return adapter


@pytest.mark.parametrize('strides', [(4, 8, 16, 32), (8, 16, 32, 64, 128), (16,)])
def test_rows_are_those_of_mmdets_extractor(strides):
    student, teacher = pyramid(strides), pyramid(strides, channels=5)
    adapter, ctx = made(student, teacher), context(BOXES, BOXES[1:3])
    (pair,) = adapter(student, teacher, ctx)
    (maps,) = made(student, teacher, output='maps')(student, teacher, ctx)
    rois = bbox2roi(ctx['gt_bboxes'])
    for found, pooled, levels in ((pair.student, maps.student, student), (pair.teacher, maps.teacher, teacher)):
        mmdets = SingleRoIExtractor(
            dict(type='RoIAlign', output_size=7, sampling_ratio=0), levels[0].shape[1], strides, 14 * strides[0]
        )
        used = mmdets.map_roi_levels(rois, len(strides)).unique()
        assert len(used) >= min(2, len(strides))
        assert torch.equal(pooled, mmdets(levels, rois))
        torch.testing.assert_close(found, mmdets(levels, rois).mean((2, 3)))
    assert pair.extras['idx'].tolist() == [100, 101, 102, 103, 104, 105, 106]
    assert pair.extras['labels'].tolist() == [0, 1, 2, 0, 1, 0, 1]


def test_both_networks_pool_the_same_boxes_whatever_their_strides():
    student, teacher = ramps((8, 16, 32)), ramps((4, 8, 16, 32))
    (pair,) = made(student, teacher, jitter=0.2)(student, teacher, context(BOXES))
    torch.testing.assert_close(pair.student, pair.teacher, rtol=0, atol=2.0)
    boxes = torch.tensor(BOXES, dtype=torch.float32)
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    moved = (pair.student - centre).abs()
    assert (moved > 0.5).any() and (moved <= 0.2 * size + 4).all()
    (exact,) = made(student, teacher)(student, teacher, context(BOXES))
    torch.testing.assert_close(exact.teacher, centre, rtol=0, atol=1.0)


@pytest.mark.parametrize(
    ('image', 'level', 'stride'),
    [
        ((128, 192), (16, 24), 8),
        ((128, 192), (2, 3), 64),
        ((128, 192), (1, 2), 128),
        ((800, 1333), (7, 11), 128),
        ((300, 300), (38, 38), 8),
        ((300, 300), (19, 19), 16),
        ((224, 224), (16, 16), 14),
    ],
)
def test_stride(image, level, stride):
    assert _stride(image, level) == stride


def test_widths_are_made_equal_where_the_loss_needs_it():
    student, teacher = pyramid(grad=True), pyramid(channels=5)
    adapter = made(student, teacher, True, output='maps', roi_size=3)
    (pair,) = adapter(student, teacher, context(BOXES, []))
    assert pair.student.shape == pair.teacher.shape == (5, 5, 3, 3)
    assert [p.shape for p in adapter.parameters()] == [(5, 3, 1, 1), (5,)]
    assert '1x1 3→5' in adapter.notes[0] and '/4 /8 /16 /32' in adapter.notes[0]
    (empty,) = adapter(student, teacher, context([], []))
    empty.student.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in adapter.parameters())


def test_boxes_at_the_edge_and_boxes_without_size():
    student = ramps((8, 16, 32))
    odd = [[-50, -30, 60, 90], [600, 500, 900, 700], [700, 10, 800, 90], [30, 30, 30, 60], [9, 9, float('nan'), 60]]
    adapter = made(student, student)
    (pair,) = adapter(student, student, context([*odd, BOXES[0]]))
    assert pair.extras['idx'].tolist() == [100, 101, 105]
    (cut,) = adapter(student, student, context([[0, 0, 60, 90], [600, 500, 640, 512], BOXES[0]]))
    assert torch.equal(pair.student, cut.student) and torch.isfinite(pair.student).all()


def test_fewest_and_most_rows():
    student = pyramid()
    few = made(student, student, min_rows=6)
    assert few(student, student, context(BOXES))[0].student.shape == (0, 3)
    (pair,) = few(student, student, context(BOXES, BOXES))
    assert pair.student.shape == (10, 3)
    many = made(student, student, max_rows=4)
    seen = set()
    for _ in range(20):
        (drawn,) = many(student, student, context(BOXES, BOXES))
        rows = drawn.extras['idx'] - 100
        assert len(set(rows.tolist())) == 4
        assert torch.equal(drawn.student, pair.student[rows])
        assert torch.equal(drawn.extras['labels'], pair.extras['labels'][rows])
        seen |= set(rows.tolist())
    assert seen == set(range(10))


@pytest.mark.parametrize('strides', [(8, 16), (16,)])
@pytest.mark.parametrize(
    'loss',
    [
        lambda: SPLoss(),
        lambda: CCLoss(),
        lambda: CCLoss('repdistiller', student_channels=3, teacher_channels=5),
        lambda: RKDLoss(),
        lambda: PKTLoss(),
        lambda: CRDLoss(3, 5, 10, nce_k=4),
    ],
)
def test_without_boxes_every_loss_is_a_zero_on_the_graph(strides, loss):
    student, teacher, loss = pyramid(strides, grad=True), pyramid(strides, channels=5), loss()
    (pair,) = made(student, teacher)(student, teacher, context([], []))
    options = dict(idx=pair.extras['idx']) if isinstance(loss, CRDLoss) else {}
    value = loss(pair.student, pair.teacher, **options)
    value.backward()
    assert value == 0
    for tensor in (*student, *loss.parameters()):
        assert tensor.grad is not None and not tensor.grad.any()


def test_background():
    student = ramps((8, 16, 32), images=2)
    adapter = made(student, student, background=20)
    adapter.background_label = 7
    ctx = context(BOXES[:2], [], size=(400, 600), ignored=[[0, 200, 300, 400]])
    rois, labels, ids = adapter.boxes(ctx)
    assert labels.tolist() == [0, 1] + [7] * 40 and ids.tolist() == [100, 101] + [-1] * 40
    assert rois[:, 0].tolist() == [0] * 22 + [1] * 20
    drawn = rois[2:22, 1:]
    assert bbox_overlaps(drawn, torch.tensor(BOXES[:2]).float()).max() < 0.3
    assert bbox_overlaps(rois[2:, 1:], torch.tensor([[0, 200, 300, 400]]).float(), mode='iof').max() < 0.3
    assert (drawn >= 0).all() and (drawn <= torch.tensor([600, 400, 600, 400])).all()
    sides = drawn[:, 2:] - drawn[:, :2]
    assert (sides >= torch.tensor([600, 400]) / 16 - 1e-3).all() and (sides <= torch.tensor([300.1, 200.1])).all()
    full = context([[0, 0, 600, 400]], size=(400, 600), ignored=[[0, 0, 600, 400]])
    assert adapter.boxes(full)[1].tolist() == [0]  # no room


@pytest.mark.parametrize('family', [retina, fcos, faster, cascade])
def test_detections_are_what_the_teacher_predicts(family):
    term = dict(
        student='neck[0:2]', teacher='neck[0:2]', adapter=dict(type='kd_det.Instances', detections=0.0, max_rows=1000),
        loss=dict(type='kd_det.SPLoss'),
    )  # fmt: skip
    model = distiller(family(), family(base=16), dict(sp=term), engine=AS_LOADED)
    images, samples = batch(model, boxes=(2, 0))
    seen = {}
    adapter = model.distill['sp'].adapter
    inner = adapter.boxes
    adapter.boxes = lambda ctx: seen.setdefault('boxes', inner(ctx))
    before = [len(s.gt_instances) for s in samples]
    total(model.loss(images, copy.deepcopy(samples))).backward()
    rois, labels, ids = seen['boxes']
    with torch.no_grad():
        predicted = model.teacher.model.predict(images, copy.deepcopy(samples), rescale=False)
    for index, (sample, truth) in enumerate(zip(predicted, samples)):
        found = sample.pred_instances
        own = truth.gt_instances.bboxes
        fresh = ~(bbox_overlaps(found.bboxes, own) >= 0.5).any(1)
        large = (found.bboxes[:, 2:] - found.bboxes[:, :2] >= 1).all(1)
        here = rois[:, 0] == index
        assert (fresh & large).any()
        torch.testing.assert_close(rois[here, 1:][before[index] :], found.bboxes[fresh & large])
        assert torch.equal(labels[here][before[index] :], found.labels[fresh & large])
        assert (ids[here][before[index] :] == -1).all() and (ids[here][: before[index]] >= 0).all()
    assert adapter.background_label == 3
    assert all(p.grad is None for p in model.teacher.model.parameters())
    adapter.detections = 1.0  # no score is above 1
    seen.clear()
    model.loss(images, samples)
    assert len(seen['boxes'][0]) == 2


@pytest.mark.parametrize('family', [retina, faster])
def test_detections_of_a_teacher_in_half_precision(family):
    """Its heads stay in float32."""
    term = dict(
        student='neck[0:2]', teacher='neck[0:2]', adapter=dict(type='kd_det.Instances', detections=0.0),
        loss=dict(type='kd_det.SPLoss'),
    )  # fmt: skip
    model = distiller(family(), family(), dict(sp=term), engine=dict(precision='bf16'))
    images, samples = batch(model)
    losses = model.loss(images, samples)
    assert model.teacher.model.backbone.conv1.weight.dtype is torch.bfloat16
    assert torch.isfinite(losses['loss_sp'])


def test_ids_are_none_where_no_sample_has_any():
    student = pyramid()
    adapter = made(student, student)
    assert adapter(student, student, context(BOXES, ids=False))[0].extras['idx'] is None
    assert adapter(student, student, context([], []))[0].extras['idx'].shape == (0,)
    crd = dict(
        student='neck',
        teacher='neck',
        adapter=dict(type='kd_det.Instances'),
        loss=dict(type='kd_det.CRDLoss', n_data=9),
    )
    model = distiller(retina(), retina(), dict(crd=crd))
    images, samples = batch(model)
    for sample in samples:
        del sample.gt_instances.instance_ids
    with pytest.raises(ConfigError, match='without ids.*InstanceIdHook'):
        model.loss(images, samples)
    del crd['loss']['n_data']
    model = distiller(retina(), retina(), dict(crd=crd))
    with pytest.raises(ConfigError, match='n_data=None.*InstanceIdHook'):
        model.loss(*batch(model))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(output='row'), "output: found 'row'.*Nearest: 'rows'"),
        (dict(jitter=1.0), 'jitter: found 1.0'),
        (dict(detections=2), 'detections: found 2'),
        (dict(max_rows=3, min_rows=5), 'max_rows: found 3, expected at least min_rows=5'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        Instances(**options)


def test_wrong_taps():
    adapter = Instances()
    with pytest.raises(ConfigError, match=r'distill.x.teacher: expected maps .* of one width C'):
        adapter.prepare(pyramid(), [*pyramid((4, 8)), *pyramid((16,), 9)], context(BOXES), 'distill.x')
    term = dict(student='backbone.layer3', teacher='student:backbone.layer4', loss=dict(type='kd_det.SPLoss'))
    term['adapter'] = dict(type='kd_det.Instances', detections=0.3)
    with pytest.raises(ConfigError, match='detections: found 0.3 without a teacher'):
        distiller(retina(), retina(), dict(sp=term))
