"""Heads as rows, compared with mmdet's own losses and with slow loops over anchors and RoIs."""

import pytest
import torch
import torch.nn.functional as F
from mmdet.structures.bbox import bbox2roi
from tiny_models import AS_LOADED, batch, build, cascade, distiller, faster, gfl, retina, ssd, total

from kd_det.adapters import AnchorRows, MultiBox, RoIRows
from kd_det.errors import ConfigError
from kd_det.registry import MODELS

TARGETS = dict(targets='bbox_head.get_targets()')
ROI_TARGETS = dict(targets='roi_head.bbox_head.get_targets()')
SOFT = dict(type='kd_det.SoftTargetLoss', use_sigmoid=True)


class Seen(torch.nn.Module):
    """A loss that keeps what it was given."""

    def forward(
        self, student, teacher, labels=None, label_weights=None, bbox_targets=None, bbox_weights=None, avg_factor=None,
        loc_t=None, conf_t=None, conf_weights=None,
    ):  # fmt: skip
        self.got = {name: value for name, value in locals().items() if name not in ('self', '__class__')}
        if isinstance(student, dict):
            student = student['conf']
        return student.float().sum() * 0.0


@pytest.fixture(autouse=True)
def seen():
    MODELS.register_module(name='SeenForRows', module=Seen, force=True)
    yield dict(type='kd_det.SeenForRows')
    MODELS.module_dict.pop('SeenForRows')


def step(model, **options):
    inputs, samples = batch(model, **options)
    losses = model.loss(inputs, samples)
    return losses, [term.losses[0].got for term in model.terms], inputs, samples


def test_anchor_rows_give_the_heads_own_losses(seen):
    """The class loss and box loss that mmdet computes itself, from our rows and weights."""
    rows = dict(adapter=dict(type='kd_det.AnchorRows'), inputs=TARGETS, loss=seen)
    model = distiller(
        retina(), retina(),
        dict(kd_cls=dict(student='bbox_head[0]', teacher='bbox_head[0]', **rows),
             kd_reg=dict(student='bbox_head[1]', teacher='bbox_head[1]', **rows)),
    )  # fmt: skip
    losses, (cls, reg), inputs, samples = step(model, sizes=[(64, 96), (60, 70)])
    head = model.student.bbox_head
    loss_cls = head.loss_cls(cls['student'], cls['labels'], cls['label_weights'], avg_factor=cls['avg_factor'])
    loss_bbox = head.loss_bbox(reg['student'], reg['bbox_targets'], reg['bbox_weights'], avg_factor=reg['avg_factor'])
    torch.testing.assert_close(loss_cls, sum(losses['loss_cls']))
    torch.testing.assert_close(loss_bbox, sum(losses['loss_bbox']))
    assert (cls['labels'] < 3).sum() > 0 and loss_bbox > 0

    with torch.no_grad():
        outs = model.teacher.model(inputs, samples, mode='tensor')  # both normalise alike
    for got, maps, columns in ((cls, outs[0], 3), (reg, outs[1], 4)):
        slow = [
            level[image, anchor * columns : (anchor + 1) * columns, y, x]
            for image in range(2)
            for level in maps
            for y in range(level.shape[2])
            for x in range(level.shape[3])
            for anchor in range(2)
        ]
        torch.testing.assert_close(got['teacher'], torch.stack(slow))


def test_rpn_rows_follow_the_rpns_own_loss(seen):
    model = distiller(
        faster(), faster(),
        dict(rpn=dict(student='rpn_head[0]', teacher='rpn_head[0]', adapter=dict(type='kd_det.AnchorRows'),
                      inputs=dict(targets='rpn_head.get_targets()'), loss=seen)),
    )  # fmt: skip
    losses, (got,), _, _ = step(model)
    by_hand = (
        F.binary_cross_entropy_with_logits(got['student'][:, 0], (got['labels'] == 0).float(), reduction='none')
        * got['label_weights']
    ).sum()
    torch.testing.assert_close(by_hand / got['avg_factor'], sum(losses['loss_rpn_cls']))


def _by_hand(teacher, features, rois, stage=None):
    head = teacher.roi_head
    with torch.no_grad():
        return head._bbox_forward(features, rois) if stage is None else head._bbox_forward(stage, features, rois)


@pytest.mark.parametrize('family', ['faster', 'cascade'])
def test_the_teacher_scores_the_students_rois(family, seen):
    """Teacher rows against a manual second stage on the RoIs that the student's own extractor was given."""
    stage = None if family == 'faster' else 1
    middle = '' if stage is None else f'.{stage}'
    terms = {
        name: dict(student=f'roi_head.bbox_head[{i}]', teacher=f'roi_head.bbox_head{middle}[{i}]', loss=seen,
                   adapter=dict(type='kd_det.RoIRows'), inputs=ROI_TARGETS)
        for i, name in enumerate(['kd_cls', 'kd_reg'])
    }  # fmt: skip
    model = distiller(faster(), faster() if stage is None else cascade(), terms, engine=AS_LOADED)
    rois = []
    hook = model.student.roi_head.bbox_roi_extractor.register_forward_pre_hook(lambda m, i: rois.append(i[1]))
    losses, (cls, reg), inputs, samples = step(model)
    hook.remove()
    assert len(rois) == 1 and rois[0].shape == (32, 5)
    teacher = model.teacher.model
    with torch.no_grad():
        result = _by_hand(teacher, teacher.extract_feat(inputs), rois[0], stage)
    torch.testing.assert_close(cls['teacher'], result['cls_score'])
    deltas = result['bbox_pred']
    if stage is None:  # class-wise: those of each row's own class
        own = cls['labels'].clamp(max=2)
        deltas = torch.stack([deltas[row, 4 * int(c) : 4 * int(c) + 4] for row, c in enumerate(own)])
        foreground = cls['labels'] < 3
        deltas, found = deltas[foreground], reg['teacher'][foreground]
    else:
        found = reg['teacher']
    torch.testing.assert_close(found, deltas)
    assert len(found) > 0

    # the student's rows give mmdet's own losses
    head = model.student.roi_head.bbox_head
    loss_cls = head.loss_cls(cls['student'], cls['labels'], cls['label_weights'], avg_factor=cls['avg_factor'])
    torch.testing.assert_close(loss_cls, losses['loss_cls'])
    positive = reg['labels'] < 3
    weighted = (reg['student'] - reg['bbox_targets']).abs() * reg['bbox_weights']
    torch.testing.assert_close(weighted[positive].sum() / reg['avg_factor'], losses['loss_bbox'])
    assert positive.any()


def test_multibox_parts_are_mmdets_own_losses_times_their_factors():
    """Where all images have positives, conf and loc of the MultiBox loss are SSDHead's loss_cls and loss_bbox."""
    term = dict(
        student='bbox_head', teacher='bbox_head', adapter=dict(type='kd_det.MultiBox'), inputs=TARGETS,
        loss=dict(type='kd_det.MultiBoxKDLoss', conf_weight=0.7, loc_weight=2.0),
    )  # fmt: skip
    model = distiller(ssd(), ssd(), dict(mb=term))
    losses = model.loss(*batch(model, sizes=[(64, 64), (48, 64)], boxes=[2, 3]))
    assert {'loss_mb_soft', 'loss_mb_conf', 'loss_mb_l2', 'loss_mb_loc'} <= set(losses)
    torch.testing.assert_close(losses['loss_mb_conf'] / 0.7, sum(losses['loss_cls']).squeeze())
    torch.testing.assert_close(losses['loss_mb_loc'] / 2.0, sum(losses['loss_bbox']).squeeze())
    assert losses['loss_mb_loc'] > 0 and losses['loss_mb_soft'] > 0


def test_multibox_without_the_heads_own_losses_trains_every_weight():
    term = dict(student='bbox_head', teacher='bbox_head', adapter=dict(type='kd_det.MultiBox'), inputs=TARGETS,
                loss=dict(type='kd_det.MultiBoxKDLoss'))  # fmt: skip
    model = distiller(ssd(), ssd(), dict(mb=term), task_weights=dict(loss_cls=0.0, loss_bbox=0.0))
    losses = model.loss(*batch(model))
    assert sum(losses['loss_cls']).item() == 0.0 == sum(losses['loss_bbox']).item()
    total(losses).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    assert model.student.bbox_head.cls_convs[0][0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    'term, says',
    [
        (
            dict(adapter=dict(type='kd_det.AnchorRows'), inputs=dict(targets='bbox_head')),
            r'distill.a.inputs.targets: expected inputs=dict\(targets=',
        ),
        (dict(adapter=dict(type='kd_det.MultiBox'), inputs=TARGETS), 'distill.a.student: expected the whole head'),
        (
            dict(adapter=dict(type='kd_det.RoIRows'), inputs=TARGETS),
            'RoIRows needs a two-stage student, and RetinaNet has no RoIs',
        ),
    ],
)
def test_wrong_inputs_of_an_adapter_name_the_right_ones(term, says):
    with pytest.raises(ConfigError, match=says):
        distiller(
            retina(), retina(), dict(a=dict(dict(student='bbox_head[0]', teacher='bbox_head[0]', loss=SOFT), **term))
        )


def test_targets_of_another_kind_of_head_are_refused():
    term = dict(student='bbox_head[0]', teacher='bbox_head[0]', loss=SOFT, inputs=TARGETS,
                adapter=dict(type='kd_det.AnchorRows'))  # fmt: skip
    with pytest.raises(ConfigError, match=r'distill.a.inputs.targets: .*expected'):
        distiller(gfl(), gfl(), dict(a=term))  # GFL's get_targets begins with anchors


@pytest.mark.parametrize('adapter', [AnchorRows, MultiBox])
def test_another_number_of_classes_is_refused(adapter):
    make = ssd if adapter is MultiBox else retina
    tap = 'bbox_head' if adapter is MultiBox else 'bbox_head[0]'
    loss = dict(type='kd_det.MultiBoxKDLoss') if adapter is MultiBox else SOFT
    term = dict(student=tap, teacher=tap, loss=loss, inputs=TARGETS, adapter=dict(type=f'kd_det.{adapter.__name__}'))
    with pytest.raises(ConfigError, match='distill.a: .*the same number of classes'):
        distiller(make(), make(classes=5), dict(a=term))


def test_rois_need_a_second_stage_in_the_student():
    term = dict(student='bbox_head[0]', teacher='roi_head.bbox_head[0]', loss=SOFT)
    with pytest.raises(ConfigError, match=r'distill.a.teacher: .*second stage.*student .RetinaNet. has none'):
        distiller(retina(), faster(), dict(a=term))
    term = dict(student='roi_head.bbox_head[0]', teacher='roi_head.bbox_head[0]', loss=SOFT)
    with pytest.raises(
        ConfigError, match=r"CascadeRCNN has 2 stages; expected one of them, such as 'roi_head.bbox_head.0"
    ):
        distiller(faster(), cascade(), dict(a=term))


def test_heads_that_encode_boxes_otherwise_are_refused():
    """Shapes agree there, numbers do not: a later stage of a cascade, and heads that regress decoded boxes."""
    l2 = dict(type='kd_det.TeacherBoundedL2Loss')
    term = dict(adapter=dict(type='kd_det.RoIRows'), inputs=ROI_TARGETS, loss=l2, student='roi_head.bbox_head[1]')
    teacher = cascade()
    stage = teacher['roi_head']['bbox_head'][1]
    stage['bbox_coder'] = dict(stage['bbox_coder'], target_stds=[0.05, 0.05, 0.1, 0.1])
    distiller(faster(), teacher, dict(a=dict(term, teacher='roi_head.bbox_head.0[1]')), init=False)
    with pytest.raises(ConfigError, match=r'distill.a: the student encodes .*0.2\)\), the teacher .*0.05, 0.05'):
        distiller(faster(), teacher, dict(a=dict(term, teacher='roi_head.bbox_head.1[1]')), init=False)
    soft = dict(term, student='roi_head.bbox_head[0]', loss=dict(type='kd_det.SoftTargetLoss'))
    distiller(faster(), teacher, dict(a=dict(soft, teacher='roi_head.bbox_head.1[0]')), init=False)  # scores may
    decoded = retina()
    decoded['bbox_head'].update(reg_decoded_bbox=True, loss_bbox=dict(type='GIoULoss'))
    rows = dict(student='bbox_head[1]', teacher='bbox_head[1]', adapter=dict(type='kd_det.AnchorRows'), inputs=TARGETS)
    with pytest.raises(ConfigError, match='distill.a.student: RetinaHead has reg_decoded_bbox=True'):
        distiller(decoded, retina(), dict(a=dict(rows, loss=l2)), init=False)


def test_the_second_stage_of_the_teacher_runs_once_for_all_terms(seen):
    rows = dict(adapter=dict(type='kd_det.RoIRows'), inputs=ROI_TARGETS, loss=seen)
    terms = {
        f'kd_{i}': dict(student=f'roi_head.bbox_head[{i}]', teacher=f'roi_head.bbox_head[{i}]', **rows) for i in (0, 1)
    }
    model = distiller(faster(), faster(), terms)
    runs = []
    model.teacher.model.roi_head.bbox_head.register_forward_pre_hook(lambda m, i: runs.append(len(i[0])))
    for _ in range(2):
        _, (cls, reg), _, _ = step(model)
        assert cls['teacher'].shape == (32, 4) and reg['teacher'].shape == (32, 4)
    assert runs == [32, 32]


def test_a_mask_head_that_shares_the_roi_extractor_does_not_mislead(seen, monkeypatch):
    """The extractor then runs twice, the second time on the positive RoIs alone; the first time counts."""
    rows = dict(adapter=dict(type='kd_det.RoIRows'), inputs=ROI_TARGETS, loss=seen)
    tap = 'roi_head.bbox_head[0]'
    model = distiller(faster(), faster(), dict(kd=dict(student=tap, teacher=tap, **rows)))
    _, (alone,), _, _ = step(model)
    head = model.student.roi_head
    bbox_loss = head.bbox_loss

    def with_masks(x, results):
        found = bbox_loss(x, results)
        head.bbox_roi_extractor(x[:2], bbox2roi([result.pos_priors for result in results]))
        return found

    monkeypatch.setattr(head, 'bbox_loss', with_masks)
    torch.manual_seed(0)
    _, (shared,), _, _ = step(model)
    assert shared['teacher'].shape == alone['teacher'].shape == (32, 4)


def test_class_wise_deltas_are_picked_by_a_loop():
    rows, labels = torch.randn(6, 12), torch.tensor([0, 2, 1, 3, 3, 2])
    picked = RoIRows._of_class(rows, labels)
    for row, label in enumerate(labels.tolist()):
        expected = rows[row, 4 * label : 4 * label + 4] if label < 3 else rows[row, :4]
        assert torch.equal(picked[row], expected)
    assert RoIRows._of_class(rows[:, :4], labels).shape == (6, 4)


def test_helpers_reach_mmdets_order():
    """The RoIs of mmdet are image by image, as bbox2roi makes them: the targets' rows are in that order too."""
    model = build(faster(), 0)
    inputs, samples = batch(model)
    rois = []
    model.roi_head.bbox_roi_extractor.register_forward_pre_hook(lambda m, i: rois.append(i[1]))
    model.loss(inputs, samples)
    assert torch.equal(rois[0][:, 0], bbox2roi([torch.zeros(16, 4), torch.zeros(16, 4)])[:, 0])


def test_targets_are_read_from_the_stage_that_is_tapped(seen):
    """Without ``inputs`` the student's own targets are read, of a cascade those of the tapped stage."""
    roi = dict(adapter=dict(type='kd_det.RoIRows'), loss=seen)
    taps = ['roi_head.bbox_head.0[0]', 'roi_head.bbox_head.1[0]']
    terms = {f'kd_{i}': dict(student=tap, teacher=tap, **roi) for i, tap in enumerate(taps)}
    model = distiller(cascade(), cascade(), terms)
    calls = []
    for head in model.student.roi_head.bbox_head:
        original = head.get_targets
        head.get_targets = lambda *args, original=original, **kwargs: (
            calls.append(original(*args, **kwargs)) or calls[-1]
        )
    _, got, _, _ = step(model)
    assert len(calls) == 2
    for targets, rows in zip(calls, got):
        assert torch.equal(rows['labels'], targets[0]) and torch.equal(rows['bbox_targets'], targets[2])
    anchor = dict(student='bbox_head[0]', teacher='bbox_head[0]', adapter=dict(type='kd_det.AnchorRows'), loss=seen)
    term = distiller(retina(), retina(), dict(a=anchor)).terms[0]
    assert {name: tap.text for name, tap in term.input_taps.items()} == TARGETS
