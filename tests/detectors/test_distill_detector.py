"""The wrapper: one step by hand, what is saved, what is copied, and the student alone."""

import copy
import gc
import io
import weakref

import pytest
import torch
from mmdet.models.test_time_augs import DetTTAModel
from mmengine.config import ConfigDict
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from tiny_models import (
    TEST,
    backbone,
    batch,
    build,
    cascade,
    cwd,
    distiller,
    faster,
    fcos,
    gfl,
    raw_batch,
    retina,
    ssd,
    total,
)

from kd_det.errors import ConfigError
from kd_det.losses import CWDLoss, FGDLoss
from kd_det.registry import MODELS

MGD = dict(student='neck', teacher='neck', loss=dict(type='kd_det.MGDLoss', alpha_mgd=1e-3))
ROI = dict(
    student='roi_head.bbox_head[0]', teacher='roi_head.bbox_head[0]', loss=dict(type='kd_det.SoftTargetLoss'),
    adapter=dict(type='kd_det.RoIRows'), inputs=dict(targets='roi_head.bbox_head.get_targets()'),
)  # fmt: skip


def equal_weights(ours, theirs):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert list(ours) == list(theirs)
    return all(torch.equal(ours[k], theirs[k]) for k in ours)


def same(ours, theirs):
    """Two loss dicts, bit for bit."""
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        for a, b in zip(*(v if isinstance(v, (list, tuple)) else [v] for v in (value, theirs[name]))):
            assert torch.equal(a, b), name


# ----------------------------------------------------------------------------------------------------- one step by hand


@pytest.mark.parametrize('family', [retina, fcos, gfl, ssd, faster, cascade])
def test_a_step_is_the_students_own_losses_and_the_terms(family):
    """The task losses of a plain student, bit for bit, and the term computed again from both necks."""
    model = distiller(family(), family(base=16), dict(kd=cwd(weight=3.0)))
    plain = build(family(), 5)
    plain.load_state_dict(model.student.state_dict())
    inputs, samples = batch(model, sizes=[(64, 96), (56, 80)])
    torch.manual_seed(1)
    theirs = plain.loss(inputs, copy.deepcopy(samples))
    torch.manual_seed(1)
    ours = model.loss(inputs, copy.deepcopy(samples))
    assert list(ours) == [*theirs, 'loss_kd']
    same({k: v for k, v in ours.items() if k != 'loss_kd'}, theirs)
    with torch.no_grad():
        pairs = zip(plain.extract_feat(inputs), model.teacher.model.extract_feat(inputs))
        by_hand = sum(CWDLoss()(s, t, [(64, 96), (56, 80)], (64, 96)) for s, t in pairs)
    torch.testing.assert_close(ours['loss_kd'].detach(), 3 * by_hand)
    assert by_hand > 0


def test_losses_get_boxes_and_sizes_as_the_network_sees_them():
    term = dict(student='neck', teacher='neck', loss=dict(type='kd_det.FGDLoss', alpha_fgd=1e-2))
    model = distiller(retina(), retina(), dict(kd=term))
    inputs, samples = batch(model, sizes=[(64, 96), (50, 80)])
    found = model.loss(inputs, samples)['loss_kd']
    by_hand = 0.0
    with torch.no_grad():
        for level, (s, t) in enumerate(
            zip(model.student.extract_feat(inputs), model.teacher.model.extract_feat(inputs))
        ):
            loss = FGDLoss(16, 16, alpha_fgd=1e-2)
            loss.load_state_dict(model.terms[0].losses[level].state_dict())
            boxes = [sample.gt_instances.bboxes for sample in samples]
            by_hand += loss(s, t, gt_bboxes=boxes, image_sizes=[(64, 96), (50, 80)], batch_input_shape=(64, 96))
    torch.testing.assert_close(found.detach(), by_hand)


@pytest.mark.parametrize(
    'student, teacher, terms',
    [
        (retina, retina, dict(a=cwd(), b=MGD)),
        (faster, faster, dict(a=cwd(), b=ROI)),
        (fcos, fcos, dict(a=cwd(), b=cwd('bbox_head[0]'))),
        (gfl, gfl, dict(a=cwd('bbox_head[0]'), b=MGD)),
        (retina, faster, dict(a=cwd(), b=MGD)),
        (faster, retina, dict(a=cwd(), b=cwd('backbone.layer3'))),
        (faster, cascade, dict(a=cwd(), b=dict(ROI, teacher='roi_head.bbox_head.1[0]'))),
        (ssd, retina, dict(a=MGD)),
    ],
)
def test_detectors_of_all_families_learn_from_each_other(student, teacher, terms):
    """Every trainable weight gets a finite gradient, which DDP needs; the teacher none."""
    model = distiller(student(), teacher(channels=24, base=16), terms)
    losses = model.loss(*batch(model))
    total(losses).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    only_terms = torch.autograd.grad(
        sum(v for k, v in model.loss(*batch(model)).items() if k in ('loss_a', 'loss_b')),
        list(model.student.neck.parameters()), allow_unused=True,
    )  # fmt: skip
    assert any(g is not None and g.abs().sum() > 0 for g in only_terms)
    for parameter in model.teacher.model.parameters():
        assert not parameter.requires_grad and parameter.grad is None


def test_images_without_boxes_and_ignored_boxes():
    for student, terms in (
        (retina, dict(a=dict(cwd(), loss=dict(type='kd_det.FGDLoss')), b=MGD)),
        (faster, dict(a=cwd(), b=ROI)),
        (fcos, dict(a=dict(cwd(), loss=dict(type='kd_det.FGDLoss')))),
    ):
        model = distiller(student(), student(channels=24), terms)
        for boxes, ignored in (([0, 0], None), ([0, 2], [1, 0]), ([1, 1], [2, 2])):
            losses = model.loss(*batch(model, boxes=boxes, ignored=ignored))
            assert all(torch.isfinite(total({k: v})) for k, v in losses.items() if 'loss' in k), losses
            model.zero_grad()
            total(losses).backward()
            assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.distill.parameters())


def test_task_weights_multiply_the_students_own_losses():
    model = distiller(retina(), retina(), dict(kd=cwd()), task_weights=dict(loss_cls=0.25))
    weighted = model.loss(*batch(model))
    model.task_weights = {}
    plain = model.loss(*batch(model))
    for ours, theirs in zip(weighted['loss_cls'], plain['loss_cls']):
        assert torch.equal(ours, theirs * 0.25)
    same(*({k: v for k, v in d.items() if k != 'loss_cls'} for d in (weighted, plain)))
    model.task_weights = dict(loss_box=1.0)
    with pytest.raises(ConfigError, match="task_weights: the student has no loss 'loss_box'.*Nearest: 'loss_bbox'"):
        model.loss(*batch(model))


def test_names_of_terms_must_not_hide_losses():
    model = distiller(retina(), retina(), dict(cls=cwd()))
    with pytest.raises(ConfigError, match="distill.cls: its loss would be called 'loss_cls'.*rename the term"):
        model.loss(*batch(model))


# -------------------------------------------------------------------------------------------------------------- inherit


def test_parts_of_the_student_start_from_the_teacher(tmp_path):
    weights = build(retina(), 7).state_dict()
    torch.save(dict(state_dict=weights), tmp_path / 't.pth')
    options = dict(checkpoint=str(tmp_path / 't.pth'))
    model = distiller(retina(), retina(), dict(a=cwd()), inherit=['neck', 'bbox_head'], **options)
    plain = distiller(retina(), retina(), dict(a=cwd()), **options)
    for key, value in model.student.state_dict().items():
        inherited = key.startswith(('neck', 'bbox_head'))
        assert torch.equal(value, weights[key] if inherited else plain.student.state_dict()[key]), key
    assert not torch.equal(plain.student.neck.fpn_convs[0].conv.weight, weights['neck.fpn_convs.0.conv.weight'])
    before = model.teacher.model.neck.fpn_convs[0].conv.weight.clone()
    with torch.no_grad():
        model.student.neck.fpn_convs[0].conv.weight.zero_()  # copied, not shared
    assert torch.equal(model.teacher.model.neck.fpn_convs[0].conv.weight, before)
    assert all(p.requires_grad for p in model.student.neck.parameters())


def test_what_does_not_fit_is_reported_and_the_rest_is_copied():
    student, teacher = retina(), retina(classes=5)
    model = distiller(student, teacher, dict(a=cwd()), inherit={'neck': 'neck'})
    ours, theirs = model.student.bbox_head, model.teacher.model.bbox_head
    before = ours.retina_cls.weight.clone()
    report = model._inherit('bbox_head', 'bbox_head')
    assert "Inherited 'bbox_head' from the teacher: 6 of 8 tensors copied; did not fit: " in report
    assert 'retina_cls.weight (10, 16, 3, 3) for (6, 16, 3, 3)' in report and 'retina_reg' not in report
    assert torch.equal(ours.retina_cls.weight, before)
    assert torch.equal(ours.retina_reg.weight, theirs.retina_reg.weight)
    assert model._inherit('neck', 'neck') == "Inherited 'neck' from the teacher: 12 of 12 tensors copied."


def test_nothing_that_fits_is_an_error():
    with pytest.raises(
        ConfigError, match="model.inherit: nothing of the teacher's 'neck.fpn_convs' fits.*Remove 'neck"
    ):
        distiller(retina(), retina(channels=24), dict(a=cwd()), inherit=['neck.fpn_convs'])


# --------------------------------------------------------------------------------------------- a guest in every respect


@pytest.fixture(scope='module')
def module_model():
    return distiller(retina(), retina(channels=24), dict(a=cwd(), b=MGD))


def test_the_teacher_is_nowhere(module_model):
    model = module_model
    mine = {id(t) for t in [*model.teacher.model.parameters(), *model.teacher.model.buffers()]}
    for tensors in (model.parameters(), model.buffers(), model.state_dict(keep_vars=True).values()):
        assert not mine & {id(t) for t in tensors}
    assert not {id(m) for m in model.teacher.model.modules()} & {id(m) for m in model.modules()}
    assert {k.split('.')[0] for k in model.state_dict()} == {'student', 'distill'}
    assert not any('teacher' in name for name, _ in model.named_modules())


def test_an_ema_copy_shares_the_teacher(module_model):
    ema = ExponentialMovingAverage(module_model)
    inside = ema.module
    assert inside.teacher is module_model.teacher
    guests = {id(m) for m in inside.teacher.model.modules()}
    assert {id(r._module) for r in inside._teacher_taps[''].recorders.values()} <= guests
    own = {id(m) for m in inside.modules()}
    assert {id(r._module) for r in inside._student_taps.recorders.values()} <= own
    assert not any('teacher' in key for key in ema.state_dict())


def test_a_deep_copy_works_by_itself(module_model):
    model = module_model
    twin = copy.deepcopy(model)
    torch.manual_seed(4)
    ours = model.loss(*batch(model))
    torch.manual_seed(4)
    theirs = twin.loss(*batch(twin))
    same(ours, theirs)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.5)
    torch.manual_seed(4)
    same(model.loss(*batch(model)), ours)
    torch.manual_seed(4)
    changed = twin.loss(*batch(twin))
    assert not torch.equal(changed['loss_a'], ours['loss_a'])  # its taps read its own student
    total(changed).backward()
    assert all(p.grad is None for p in model.parameters()) and all(p.grad is not None for p in twin.parameters())


def test_it_moves_and_converts_with_the_wrapper():
    model = distiller(retina(), retina(), dict(a=cwd())).double()
    inputs, samples = batch(model)
    for sample in samples:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.double()
    losses = model.loss(inputs.double(), samples)
    assert losses['loss_a'].dtype == torch.float64
    early = distiller(retina(), retina(), dict(a=cwd()), init=False).double()  # before the teacher is loaded
    assert early.loss(inputs.double(), samples)['loss_a'].dtype == torch.float64


def test_readings_are_freed_after_a_step(module_model, monkeypatch):
    model, seen = module_model, []
    observe = model.teacher.observe

    def spy(images, samples, taps):
        observe(images, samples, taps)
        seen.extend(weakref.ref(level) for level in taps.read(model.terms[0].teacher_tap))

    monkeypatch.setattr(model.teacher, 'observe', spy)
    hook = model.student.neck.register_forward_hook(lambda m, i, o: seen.extend(map(weakref.ref, o)))
    losses = model.loss(*batch(model))
    hook.remove()
    assert len(seen) == 6
    gc.collect()
    assert [ref() is None for ref in seen[:3]] == [True] * 3  # the teacher's, even before the backward pass
    del losses
    gc.collect()
    assert all(ref() is None for ref in seen)


def test_readings_are_freed_after_a_step_that_failed(module_model, monkeypatch):
    model = module_model

    def fail(*args, **kwargs):
        raise RuntimeError('no loss today')

    monkeypatch.setattr(model.student.bbox_head, 'loss', fail)
    with pytest.raises(RuntimeError, match='no loss today'):
        model.loss(*batch(model))
    assert not any(model._student_taps.counts().values()) and not any(model._teacher_taps[''].counts().values())


# ---------------------------------------------------------------------------------------------------------- checkpoints


def steps(model, optimiser, n, start=0):
    for i in range(start, start + n):
        torch.manual_seed(100 + i)
        optimiser.zero_grad()
        losses = model.loss(*batch(model, seed=i))
        total(losses).backward()
        optimiser.step()
    return losses


def test_a_checkpoint_brings_back_the_same_next_step():
    def fresh(seed):
        model = distiller(retina(backbone=backbone(norm_eval=False)), retina(), dict(a=cwd(), b=MGD), seed=seed)
        return model, torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)

    ours, optimiser = fresh(0)
    theirs, other = fresh(9)
    theirs.teachers = ours.teachers  # random weights: the same teacher for both
    theirs._teacher_taps, theirs._second = ours._teacher_taps, ours._second
    steps(ours, optimiser, 2)
    file = io.BytesIO()
    torch.save(dict(model=ours.state_dict(), optimiser=optimiser.state_dict()), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert {k.split('.')[0] for k in saved['model']} == {'student', 'distill'}
    theirs.load_state_dict(saved['model'])
    other.load_state_dict(saved['optimiser'])
    same(steps(ours, optimiser, 1, start=2), steps(theirs, other, 1, start=2))
    assert equal_weights(ours, theirs)


def test_a_plain_students_checkpoint_loads_into_the_wrapper():
    plain = build(retina(), 11)
    model = distiller(retina(), retina(), dict(a=cwd()))
    model.load_state_dict(plain.state_dict())  # nothing of the terms has weights: strict
    assert equal_weights(model.student, plain)
    model = distiller(retina(), retina(), dict(a=cwd(), b=MGD))
    missing, unexpected = model.load_state_dict(plain.state_dict(), strict=False)
    assert equal_weights(model.student, plain)
    assert not unexpected and missing and all(name.startswith('distill.') for name in missing)
    model = distiller(retina(), retina(), dict(a=cwd()))
    _load_checkpoint_to_model(model, dict(state_dict=plain.state_dict()), strict=True)  # as mmengine's load_from does
    assert equal_weights(model.student, plain)
    own = distiller(retina(), retina(), dict(a=cwd()), seed=3)
    own.load_state_dict(model.state_dict())
    assert equal_weights(own.student, plain)


# ---------------------------------------------------------------------------------------------------- the student alone


@pytest.mark.parametrize('family', [retina, faster])
def test_predictions_are_the_plain_students_bit_for_bit(family):
    model = distiller(family(), family(channels=24), dict(a=cwd())).eval()
    plain = build(family(), 5).eval()
    plain.load_state_dict(model.student.state_dict())
    runs = []
    model.teacher.model.backbone.register_forward_pre_hook(lambda *_: runs.append(1))
    data = raw_batch(sizes=[(64, 96), (50, 70)])
    with torch.no_grad():
        ours, theirs = model.test_step(copy.deepcopy(data)), plain.test_step(copy.deepcopy(data))
        inputs, samples = batch(model, training=False)
        tensors = [m(inputs, samples, mode='tensor') for m in (model, plain)]
        maps = [m.extract_feat(inputs) for m in (model, plain)]
    for a, b in zip(ours, theirs):
        assert len(a.pred_instances) == len(b.pred_instances) > 0
        for field in ('bboxes', 'scores', 'labels'):
            assert torch.equal(a.pred_instances[field], b.pred_instances[field])
    assert all(torch.equal(a, b) for a, b in zip(*maps))
    flat = [[t for part in out for t in (part if isinstance(part, (list, tuple)) else [part])] for out in tensors]
    assert all(torch.equal(a, b) for a, b in zip(*flat) if isinstance(a, torch.Tensor))
    assert not runs  # the teacher takes no part


def test_test_time_augmentation_runs_the_student():
    model = distiller(retina(), retina(), dict(a=cwd()))
    plain = build(retina(), 5)
    plain.load_state_dict(model.student.state_dict())
    results = []
    for module in (model, plain):
        tta = DetTTAModel(module=module, tta_cfg=ConfigDict(nms=TEST['nms'], max_per_img=10)).eval()
        views = [raw_batch(sizes=[(64, 96)], boxes=[1]), raw_batch(sizes=[(64, 96)], boxes=[1])]
        views[1]['inputs'] = [image.flip(-1) for image in views[1]['inputs']]
        views[0]['data_samples'][0].set_metainfo(dict(flip_direction=None))
        views[1]['data_samples'][0].set_metainfo(dict(flip=True, flip_direction='horizontal'))
        data = dict(inputs=[v['inputs'] for v in views], data_samples=[v['data_samples'] for v in views])
        with torch.no_grad():
            results.append(tta.test_step(data)[0].pred_instances)
    assert len(results[0]) > 0
    assert torch.equal(results[0].bboxes, results[1].bboxes) and torch.equal(results[0].scores, results[1].scores)


# ------------------------------------------------------------------------------------- precision, memory, gradient sums


def test_autocast_leaves_losses_in_float32_and_close():
    model = distiller(
        retina(),
        retina(channels=24),
        dict(a=cwd(), b=dict(MGD), c=cwd('bbox_head.cls_convs.0', 'bbox_head.cls_convs.0')),
    )
    torch.manual_seed(2)
    exact = model.loss(*batch(model))
    torch.manual_seed(2)
    with torch.autocast('cpu', torch.bfloat16):
        losses = model.loss(*batch(model))
    for name in ('loss_a', 'loss_b', 'loss_c'):
        assert losses[name].dtype == torch.float32 and torch.isfinite(losses[name])
        torch.testing.assert_close(losses[name], exact[name], rtol=0.05, atol=1e-3)
    total(losses).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_half_precision_readings_are_compared_in_float32():
    model = distiller(retina(), retina(channels=24), dict(a=cwd(), b=MGD))
    maps = [[400 * torch.randn(1, c, 16, 24), torch.randn(1, c, 8, 12), torch.randn(1, c, 4, 6)] for c in (16, 24)]
    half = [[m.half() for m in side] for side in maps]
    for name, term in model.distill.items():
        torch.manual_seed(0)
        found = term(*half, {})[f'loss_{name}']
        torch.manual_seed(0)
        expected = term(*[[m.float() for m in side] for side in half], {})[f'loss_{name}']
        assert found.dtype == torch.float32 and torch.isfinite(found)
        assert torch.equal(found, expected)
    double = model.distill.a.double()
    assert double(*[[m.double() for m in side] for side in maps], {})['loss_a'].dtype == torch.float64


def test_inputs_of_a_term_are_raised_to_float32_too():
    class Sees(torch.nn.Module):
        def forward(self, student, teacher, scores):
            self.dtypes = {student.dtype, teacher.dtype, *(s.dtype for s in scores)}
            return student.sum() * 0

    MODELS.register_module(name='SeesInputs', module=Sees, force=True)
    model = distiller(
        retina(), retina(), dict(a=dict(cwd(inputs=dict(scores='bbox_head[0]')), loss=dict(type='kd_det.SeesInputs')))
    )
    with torch.autocast('cpu', torch.bfloat16):
        model.loss(*batch(model))
    assert [loss.dtypes for loss in model.terms[0].losses] == [{torch.float32}] * 3


def test_checkpointing_the_students_gradients_changes_nothing():
    grads = []
    for with_cp in (False, True):
        model = distiller(retina(backbone=backbone(with_cp=with_cp)), retina(), dict(a=cwd(), b=cwd('backbone.layer3')))
        total(model.loss(*batch(model))).backward()
        grads.append({k: p.grad for k, p in model.named_parameters()})
    for name, value in grads[0].items():
        torch.testing.assert_close(grads[1][name], value, msg=name)


def test_a_tap_inside_a_checkpointed_block_is_refused():
    """Its reading has no graph: the student would learn nothing, silently."""
    model = distiller(
        retina(backbone=backbone(with_cp=True)), retina(), dict(a=cwd('backbone.layer3.0.conv1')), init=False
    )
    with pytest.raises(ConfigError, match=r"distill.a.student: 'backbone.layer3.0.conv1'.*grad"):
        model.loss(*batch(model))


def test_two_half_batches_add_up_to_one_whole():
    """With a mean over images and no batch statistics, gradient accumulation equals one big step."""
    model = distiller(retina(), retina(), dict(a=cwd()), task_weights=dict(loss_cls=0.0, loss_bbox=0.0))
    inputs, samples = batch(model)

    def grads(parts):
        model.zero_grad()
        for part in parts:
            (total(model.loss(inputs[part], samples[part])) / len(parts)).backward()
        return {k: p.grad.clone() for k, p in model.named_parameters()}

    whole, halves = grads([slice(0, 2)]), grads([slice(0, 1), slice(1, 2)])
    for name, value in whole.items():
        torch.testing.assert_close(halves[name], value, rtol=1e-4, atol=1e-7, msg=name)


# ------------------------------------------------------------------------------------------------------------ schedules


def test_a_term_that_is_off_costs_nothing_and_keeps_ddp_content():
    model = distiller(retina(), retina(), dict(a=cwd(), b=MGD))
    plain = build(retina(), 5)
    plain.load_state_dict(model.student.state_dict())
    for term in model.terms:
        term.factor = 0.0
    runs = []
    model.teacher.model.backbone.register_forward_pre_hook(lambda *_: runs.append(1))
    losses = model.loss(*batch(model))
    assert not runs  # nobody asks the teacher
    assert losses['loss_b'].item() == 0.0
    total(losses).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert not any(p.grad.any() for p in model.distill.parameters())
    total(plain.loss(*batch(plain))).backward()
    for ours, theirs in zip(model.student.parameters(), plain.parameters()):
        assert torch.equal(ours.grad, theirs.grad)


def test_the_factor_multiplies_the_term():
    model = distiller(retina(), retina(), dict(a=cwd(weight=2.0), b=cwd('backbone', schedule=dict(begin=1))))
    assert [t.factor for t in model.terms] == [1.0, 0.0]
    full = model.loss(*batch(model))
    assert 'loss_b' not in full
    model.terms[0].factor, model.terms[1].factor = 0.5, 1.0
    half = model.loss(*batch(model))
    torch.testing.assert_close(half['loss_a'], full['loss_a'] / 2)
    assert half['loss_b'] > 0


# -------------------------------------------------------------------------------------------------------------- mmrazor


def test_mmrazors_losses_are_terms():
    """ChannelWiseDivergence on unpadded batches is CWDLoss; PKD against its formula."""
    razor = dict(student='neck', teacher='neck')
    terms = dict(
        ours=cwd(),
        theirs=dict(razor, loss=dict(type='mmrazor.ChannelWiseDivergence', tau=1)),
        pkd=dict(razor, loss=dict(type='mmrazor.PKDLoss', loss_weight=2.0)),
    )
    model = distiller(retina(), retina(), terms)
    inputs, samples = batch(model)
    losses = model.loss(inputs, samples)
    torch.testing.assert_close(losses['loss_ours'], losses['loss_theirs'])
    by_hand = 0.0
    with torch.no_grad():
        for s, t in zip(model.student.extract_feat(inputs), model.teacher.model.extract_feat(inputs)):
            s, t = ((m - m.mean((0, 2, 3), keepdim=True)) / (m.std((0, 2, 3), keepdim=True) + 1e-6) for m in (s, t))
            by_hand += 2.0 * (s - t).square().mean() / 2
    torch.testing.assert_close(losses['loss_pkd'].detach(), by_hand, rtol=1e-3, atol=1e-5)
    total(losses).backward()


def test_a_foreign_loss_that_wants_all_levels_gets_lists():
    class AllLevels(torch.nn.Module):
        multi_level = True

        def forward(self, student, teacher, image_sizes, level):
            assert [s.shape for s in student] == [t.shape for t in teacher] and level == [0, 1, 2]
            assert student[0].shape[-1] > student[1].shape[-1] and image_sizes == [(64, 96)] * 2
            return dict(first=(student[0] - teacher[0]).square().mean(), rest=student[1].sum() * 0)

    MODELS.register_module(name='AllLevels', module=AllLevels, force=True)
    model = distiller(retina(), retina(), dict(a=dict(cwd(), loss=dict(type='kd_det.AllLevels'))))
    assert [r.level for r in model.plan.rows] == ['all']
    inputs, samples = batch(model)
    losses = model.loss(inputs, samples)
    with torch.no_grad():
        s, t = model.student.extract_feat(inputs)[0], model.teacher.model.extract_feat(inputs)[0]
    torch.testing.assert_close(losses['loss_a_first'].detach(), (s - t).square().mean())
    assert losses['loss_a_rest'].item() == 0.0
