"""RoI maps through a pyramid and each network's own classifier."""

import copy

import pytest
import torch
from tiny_models import batch, cascade, distiller, faster, pooled_faster, retina

from kd_det.losses.sdd import SDDLoss

HEAD = 'roi_head.bbox_head'


def terms(tap=f'{HEAD}@in[0]', teacher=None, M=(1, 2, 4), **loss):
    adapter = dict(type='kd_det.RoIPyramid', M=list(M))
    return dict(
        sdd=dict(student=tap, teacher=teacher or tap, adapter=adapter, loss=dict(type='kd_det.SDDLoss', **loss))
    )


def conv_head(convs=2, fcs=0, pooled=True, cls_convs=0):
    cfg = faster()
    cfg['roi_head']['bbox_head'].update(
        type='ConvFCBBoxHead', num_shared_convs=convs, num_shared_fcs=fcs, num_cls_convs=cls_convs,
        conv_out_channels=12, with_avg_pool=pooled,
    )  # fmt: skip
    return cfg


def step(model, monkeypatch):
    """What the loss got, what both heads were given and gave, and the RoIs' targets."""
    seen, forward = {}, SDDLoss.forward

    def spy(self, *args, **kwargs):
        seen.update(loss=args, asked=kwargs)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(SDDLoss, 'forward', spy)
    for side, net in (('student', model.student), ('teacher', model.teacher.model)):
        net.roi_head.bbox_head.register_forward_hook(
            lambda module, args, out, side=side: seen.update({side: (args[0].detach(), out[0].detach())})
        )
    head, targets = model.student.roi_head.bbox_head, []
    get = head.get_targets
    monkeypatch.setattr(
        head, 'get_targets', lambda *args, **kwargs: targets.append(get(*args, **kwargs)) or targets[-1]
    )
    value = model.loss(*batch(model))['loss_sdd']
    return value, seen, targets[-1]


def slow_regions(maps, classifier, M):
    """Region by region, from a map that is pooled to the finest grid: scores (N, K, R)."""
    columns, finest = [], M[-1]
    grid = torch.nn.functional.adaptive_avg_pool2d(maps, finest)
    for m in M:
        cell = finest // m
        for row in range(m):
            for column in range(m):
                part = grid[:, :, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
                columns.append(part.mean((2, 3)) @ classifier.weight.T + classifier.bias)
    return torch.stack(columns, 2)


def test_regions_and_targets(monkeypatch):
    model = distiller(pooled_faster(), pooled_faster(base=16, channels=24), terms())
    value, seen, targets = step(model, monkeypatch)
    ours, theirs = seen['loss']
    for logits, net, side in ((ours, model.student, 'student'), (theirs, model.teacher.model, 'teacher')):
        maps, _ = seen[side]
        head = net.roi_head.bbox_head
        torch.testing.assert_close(logits, slow_regions(maps, head.fc_cls, (1, 2, 4)))
        assert logits.shape == (len(targets[0]), 4, 21)
    assert torch.equal(seen['asked']['labels'], targets[0])
    assert torch.equal(seen['asked']['label_weights'], targets[1])
    assert seen['student'][0].shape[0] == seen['teacher'][0].shape[0]  # both on the student's sampled RoIs
    torch.testing.assert_close(value, SDDLoss()(*seen['loss'], **seen['asked']))


def test_the_whole_is_what_the_head_says(monkeypatch):
    """With a map of the finest grid's size the first region is the head's own score."""
    student, teacher = pooled_faster(), pooled_faster()
    for cfg in (student, teacher):
        cfg['roi_head']['bbox_roi_extractor']['roi_layer']['output_size'] = 4
        cfg['roi_head']['bbox_head']['roi_feat_size'] = 4
    model = distiller(student, teacher, terms())
    _, seen, _ = step(model, monkeypatch)
    torch.testing.assert_close(seen['loss'][0][:, :, 0].detach(), seen['student'][1])
    torch.testing.assert_close(seen['loss'][1][:, :, 0], seen['teacher'][1])


def test_a_head_of_convolutions(monkeypatch):
    tap = f'{HEAD}.shared_convs.1'
    model = distiller(conv_head(), conv_head(), terms(tap))
    _, seen, _ = step(model, monkeypatch)
    head = model.student.roi_head.bbox_head
    maps = head.shared_convs[1](head.shared_convs[0](seen['student'][0]))
    torch.testing.assert_close(seen['loss'][0], slow_regions(maps, head.fc_cls, (1, 2, 4)))


def test_cascade_stage():
    cfg = cascade()
    for head in cfg['roi_head']['bbox_head']:
        head.pop('fc_out_channels')
        head.update(type='BBoxHead', with_avg_pool=True)
    model = distiller(cfg, cfg, terms(f'{HEAD}.1@in[0]'))
    assert model.distill['sdd'].input_taps['targets'].text == f'{HEAD}.1.get_targets()'
    assert model.loss(*batch(model))['loss_sdd'] > 0
    assert distiller(pooled_faster(), cfg, terms(teacher=f'{HEAD}.1@in[0]')).loss(*batch(model))['loss_sdd'] > 0


def test_gradients_reach_the_students_classifier_and_nothing_of_the_teacher():
    model = distiller(pooled_faster(), pooled_faster(channels=24), terms())
    model.loss(*batch(model))['loss_sdd'].backward()
    head = model.student.roi_head.bbox_head
    assert head.fc_cls.weight.grad.any() and head.fc_reg.weight.grad is None
    assert model.student.backbone.layer2[0].downsample[0].weight.grad.any()
    assert all(p.grad is None for p in model.teacher.model.parameters())
    assert not list(model.distill.parameters()) and {k.split('.')[0] for k in model.state_dict()} == {'student'}


def test_a_copy_scores_with_its_own_classifier():
    model = distiller(pooled_faster(), pooled_faster(), terms())
    twin = copy.deepcopy(model)
    assert twin.distill['sdd'].adapter.student_net.module is twin.student
    assert twin.distill['sdd'].adapter.teacher_net.module is model.teacher.model


@pytest.mark.parametrize(
    'student, tap, message',
    [
        (faster(), f'{HEAD}@in[0]', 'sdd.student: Shared2FCBBoxHead .* flattens the map; .*with_avg_pool=True'),
        (conv_head(1, 1), f'{HEAD}.shared_convs.0', 'has fully connected layers before fc_cls'),
        (conv_head(2), f'{HEAD}@in[0]', f"is not what ConvFCBBoxHead classifies; expected '{HEAD}.shared_convs.1'"),
        (conv_head(2, cls_convs=1), f'{HEAD}.shared_convs.1', f"expected '{HEAD}.cls_convs.0'"),
        (pooled_faster(), f'{HEAD}[0]', f"is not what BBoxHead classifies; expected '{HEAD}@in\\[0\\]'"),
        (pooled_faster(), 'neck[0]', 'BBoxHead classifies'),
        (pooled_faster(classes=5), f'{HEAD}@in[0]', r'6, 21\) in the student and \(\d+, 4, 21\) in the teacher'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(student, tap, message):
    with pytest.raises(ValueError, match=message):
        distiller(student, pooled_faster(), terms(tap, teacher=f'{HEAD}@in[0]'))


def test_refusals_of_the_other_side():
    with pytest.raises(ValueError, match='distill.sdd.teacher: Shared2FCBBoxHead'):
        distiller(pooled_faster(), faster(), terms())
    with pytest.raises(ValueError, match='sdd.student.*is in no box head|has no'):
        distiller(retina(), pooled_faster(), terms('neck[0]', teacher=f'{HEAD}@in[0]'))
    with pytest.raises(ValueError, match=r'M=\(1, 3, 4\), expected growing sizes'):
        distiller(pooled_faster(), pooled_faster(), terms(M=(1, 3, 4)))
