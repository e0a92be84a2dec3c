"""Auxiliary classifiers on stages of the backbone, compared with mmdet's own sampling, pooling and second stage."""

import math

import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures.bbox import bbox2roi
from tiny_models import AS_LOADED, batch, cascade, distiller, faster, retina, total
from torch import nn

from kd_det.adapters import StageClassifier
from kd_det.errors import ConfigError
from kd_det.losses.ofa import OFAProjector
from kd_det.registry import MODELS


class Seen(nn.Module):
    """A loss that keeps what it was given."""

    def forward(self, student, teacher, labels):
        self.got = dict(student=student, teacher=teacher, labels=labels)
        return (student * 1.0).sum()


@pytest.fixture(autouse=True)
def seen():
    MODELS.register_module(name='SeenForStages', module=Seen, force=True)
    yield
    MODELS.module_dict.pop('SeenForStages')


def term(stage=1, of=4, teacher='roi_head.bbox_head[0]', loss='kd_det.SeenForStages', **options):
    adapter = dict(type='kd_det.StageClassifier', stages_behind=of - stage, **options)
    return dict(student=f'backbone[{stage - 1}]', teacher=teacher, adapter=adapter, loss=dict(type=loss))


def positives(model):
    """Notes the foreground that the student samples, per image."""
    noted, head = [], model.student.roi_head
    original = head.bbox_loss

    def bbox_loss(x, results):
        noted.extend(results)
        return original(x, results)

    head.bbox_loss = bbox_loss
    return noted


@pytest.mark.parametrize('stage', [1, 4])
def test_rows_are_the_foreground_of_the_students_own_sampling(stage):
    """Labels, pooled maps and the teacher's logits, each by mmdet's own parts."""
    model = distiller(faster(), faster(), dict(a=term(stage)), engine=AS_LOADED)
    sampled = positives(model)
    maps = []
    model.student.backbone.register_forward_hook(lambda module, args, output: maps.append(output))
    inputs, samples = batch(model, sizes=[(64, 96), (60, 70)], boxes=(2, 2))
    model.loss(inputs, samples)
    got = model.terms[0].losses[0].got
    labels = torch.cat([result.pos_gt_labels for result in sampled])
    assert len(labels) >= 4 and torch.equal(got['labels'], labels)
    rois = bbox2roi([result.pos_priors for result in sampled])
    teacher = model.teacher.model
    with torch.no_grad():
        expected = teacher.roi_head._bbox_forward(teacher.extract_feat(inputs), rois)['cls_score']
    torch.testing.assert_close(got['teacher'], expected)
    channels, stride = 8 * 2 ** (stage - 1), 4 * 2 ** (stage - 1)
    layer = dict(type='RoIAlign', output_size=7, sampling_ratio=0)
    pooled = SingleRoIExtractor(layer, channels, [stride])([maps[-1][stage - 1]], rois)
    torch.testing.assert_close(got['student'], model.terms[0].adapter.projector(pooled))
    assert got['student'].shape == (len(labels), 4)


def test_it_reaches_its_stage_and_every_parameter_of_its_own():
    model = distiller(faster(), faster(), dict(a=term(2), b=term(4)))
    losses = model.loss(*batch(model))
    (losses['loss_a'] + losses['loss_b']).backward()
    assert all(p.grad is not None for p in model.distill.parameters())
    assert model.student.backbone.layer2[0].downsample[0].weight.grad.any()
    assert model.student.backbone.layer4[0].downsample[0].weight.grad.any()
    assert model.student.neck.lateral_convs[0].conv.weight.grad is None


def test_a_batch_without_objects_is_a_zero_that_hangs_on_the_graph():
    """As DDP without find_unused_parameters needs it; batch norm sees no batch of nothing."""
    model = distiller(faster(), faster(), dict(a=term(1, loss='kd_det.OFALoss')))
    before = {name: value.clone() for name, value in model.distill.named_buffers()}
    losses = model.loss(*batch(model, boxes=(0, 0)))
    assert losses['loss_a'].item() == 0
    losses['loss_a'].backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.distill.parameters())
    assert model.student.backbone.layer1[0].conv1.weight.grad is not None
    assert all(torch.equal(before[name], value) for name, value in model.distill.named_buffers())


def test_a_cascade_gives_its_first_stages_rois():
    teacher = 'roi_head.bbox_head.0[0]'
    model = distiller(cascade(), cascade(), dict(a=term(1, teacher=teacher, cascade=True)), engine=AS_LOADED)
    sampled, head = [], model.student.roi_head
    original = head.bbox_loss
    head.bbox_loss = lambda stage, x, results: (
        sampled.extend(results if stage == 0 else []) or original(stage, x, results)
    )
    inputs, samples = batch(model)
    model.loss(inputs, samples)
    got = model.terms[0].losses[0].got
    assert torch.equal(got['labels'], torch.cat([result.pos_gt_labels for result in sampled]))
    rois = bbox2roi([result.pos_priors for result in sampled])
    net = model.teacher.model
    with torch.no_grad():
        expected = net.roi_head._bbox_forward(0, net.extract_feat(inputs), rois)['cls_score']
    torch.testing.assert_close(got['teacher'], expected)


def test_a_mask_head_that_shares_the_roi_extractor_does_not_mislead(monkeypatch):
    """The extractor then runs twice, the second time on the positive RoIs alone; the first time counts."""
    model = distiller(faster(), faster(), dict(a=term(1)))
    inputs, samples = batch(model)
    torch.manual_seed(0)
    model.loss(inputs, samples)
    alone, head = model.terms[0].losses[0].got, model.student.roi_head
    bbox_loss = head.bbox_loss

    def with_masks(x, results):
        found = bbox_loss(x, results)
        head.bbox_roi_extractor(x[:2], bbox2roi([result.pos_priors for result in results]))
        return found

    monkeypatch.setattr(head, 'bbox_loss', with_masks)
    torch.manual_seed(0)
    model.loss(inputs, samples)
    shared = model.terms[0].losses[0].got
    assert torch.equal(shared['labels'], alone['labels']) and torch.equal(shared['teacher'], alone['teacher'])


def test_other_taps_are_refused():
    with pytest.raises(ConfigError, match=r'distill.a.student: the reading is 3 items .*expected one map of the back'):
        distiller(faster(), faster(), dict(a=dict(term(), student='neck')), init=False)
    with pytest.raises(ConfigError, match=r'distill.a.teacher: the reading is .* expected one row of class scores'):
        distiller(faster(), faster(), dict(a=dict(term(), teacher='neck[0]')), init=False)
    with pytest.raises(ConfigError, match=r'StageClassifier needs a two-stage student'):
        distiller(retina(), faster(), dict(a=term()), init=False)
    with pytest.raises(ConfigError, match=r'distill.a: the second stage of the student has 3 classes, .*teacher 5'):
        distiller(faster(), faster(classes=5), dict(a=term()), init=False)
    with pytest.raises(ConfigError, match=r'adapter.stages_behind: found -1, expected 0 or more'):
        StageClassifier(stages_behind=-1)


@pytest.mark.parametrize('blocks', [0, 1, 3])
def test_projector_is_built_as_the_paper_says(blocks):
    """Counted from the description: per block two depthwise 3x3, two 1x1, two batch norms; no bias but at the ends."""
    projector = OFAProjector(8, 5, blocks)
    width = 8 * 2**blocks
    expected = width * 5 + 5
    if not blocks:
        expected += 8 * 8 + 8
    for i in range(blocks):
        one, other = 8 * 2**i, 8 * 2 ** (i + 1)
        expected += 2 * 9 * one + one * one + one * other + 2 * one + 2 * other
    assert sum(p.numel() for p in projector.parameters()) == expected
    strides = [m.stride[0] for m in projector.modules() if isinstance(m, nn.Conv2d)]
    assert strides.count(2) == blocks
    assert projector(torch.randn(3, 8, 14, 14)).shape == (3, 5)
    assert OFAProjector(8, 5, blocks, out_channels=20).classifier.in_features == 20
    with pytest.raises(ConfigError, match='blocks=-1'):
        OFAProjector(8, 5, -1)


def test_projector_starts_from_kaiming_fan_out():
    projector = OFAProjector(256, 5, 1)
    for conv in (m for m in projector.modules() if isinstance(m, nn.Conv2d)):
        fan_out = conv.weight.shape[0] * conv.weight[0, 0].numel()
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)


def test_classifiers_are_trained_beside_the_student_and_never_part_of_it():
    model = distiller(faster(), faster(), dict(a=term(1)))
    names = [name for name in model.state_dict() if 'projector' in name]
    assert names and all(name.startswith('distill.a.adapter.projector.') for name in names)
    total(model.loss(*batch(model))).backward()
