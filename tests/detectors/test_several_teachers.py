"""Several teachers, the student's own average, and the student as its own teacher."""

import copy

import pytest
import torch
from tiny_models import batch, cwd, distiller, faster, fcos, retina, total

from kd_det.errors import ConfigError

FROM_HEAD = dict(
    student='roi_head.bbox_head[0]',
    teacher='big:roi_head.bbox_head[0]',
    loss=dict(type='kd_det.KDLoss'),
    adapter=dict(type='kd_det.RoIRows'),
    inputs=dict(targets='roi_head.bbox_head.get_targets()'),
)


def teachers(**cfgs):
    return {name: dict(config=cfg, checkpoint=None) for name, cfg in cfgs.items()}


def model_of(student, teacher, terms, **options):
    from kd_det.registry import MODELS

    torch.manual_seed(0)
    model = MODELS.build(
        dict(type='kd_det.DistillDetector', student=student, teacher=teacher, distill=terms, **options)
    )
    model.init_weights()
    return model.train()


# ------------------------------------------------------------------------------------------------- several teachers


def test_each_term_has_its_teacher():
    terms = dict(a=cwd('neck', 'big:neck'), b=cwd('neck', 'other:neck'))
    model = model_of(retina(), teachers(big=retina(base=16), other=fcos()), terms)
    assert set(model.teachers) == {'big', 'other'} and {k.split('.')[0] for k in model.state_dict()} == {'student'}
    images, samples = batch(model)
    losses = model.loss(images, copy.deepcopy(samples))
    maps = model.student.extract_feat(images)
    for name, teacher in (('a', 'big'), ('b', 'other')):
        with torch.no_grad():
            theirs = model.teachers[teacher].model.extract_feat(images)
        expected = sum(model.terms[0].losses[0](s, t) for s, t in zip(maps, theirs))
        assert float(losses[f'loss_{name}']) == pytest.approx(float(expected), rel=1e-4)
    assert losses['loss_a'] != losses['loss_b']
    total(losses).backward()
    assert all(p.grad is None for one in model.teachers.values() for p in one.model.parameters())


def test_a_silent_term_leaves_its_teacher_idle(monkeypatch):
    terms = dict(a=cwd('neck', 'big:neck'), b=cwd('neck', 'other:neck'))
    model = model_of(retina(), teachers(big=retina(), other=fcos()), terms)
    model.terms[0].factor = 0.0
    monkeypatch.setattr(model.teachers['big'], 'observe', None)
    assert set(model.loss(*batch(model))) >= {'loss_b'}


def test_inputs_of_another_teacher_keep_it_running():
    """Also when the only term that names it as its teacher is silent."""
    a = {**cwd('neck[0]', 'big:neck[0]'), 'inputs': dict(theirs='other:neck')}
    model = model_of(retina(), teachers(big=retina(), other=fcos()), dict(a=a, b=cwd('neck', 'other:neck')))
    model.terms[1].factor = 0.0
    seen = {}
    model.terms[0].forward = lambda s, t, context: seen.update(context) or {}
    model.loss(*batch(model))
    assert len(seen['theirs']) == 3


def test_second_stages_of_two_teachers():
    terms = dict(a=FROM_HEAD, b={**FROM_HEAD, 'teacher': 'other:roi_head.bbox_head[0]'})
    model = model_of(faster(), teachers(big=faster(base=16), other=faster()), terms)
    losses = model.loss(*batch(model))
    assert losses['loss_a'] > 0 and losses['loss_b'] > 0 and losses['loss_a'] != losses['loss_b']


def test_inherit_from_one_of_them():
    terms = dict(a=cwd('neck', 'big:neck'))
    model = model_of(retina(), teachers(big=fcos(), other=retina()), terms, inherit=dict(bbox_head='other:bbox_head'))
    theirs = model.teachers['other'].model.bbox_head.state_dict()
    assert all(torch.equal(value, theirs[k]) for k, value in model.student.bbox_head.state_dict().items())


def test_inputs_read_the_terms_own_teacher():
    term = {**cwd('neck[0]', 'other:neck[0]'), 'inputs': dict(theirs='teacher:bbox_head[0]', ours='bbox_head[0]')}
    model = model_of(retina(), teachers(big=retina(3), other=retina(5)), dict(a=term))
    seen = {}
    model.terms[0].forward = lambda s, t, context: seen.update(context) or {}
    model.loss(*batch(model))
    assert seen['theirs'][0].shape[1] == seen['ours'][0].shape[1] // 3 * 5
    assert not seen['theirs'][0].requires_grad and seen['ours'][0].requires_grad


@pytest.mark.parametrize(
    'teacher, terms, says',
    [
        (teachers(big=retina(), other=retina()), dict(a=cwd()), "several teachers .*such as 'big:neck'"),
        (teachers(big=retina(), other=retina()), dict(a=cwd('neck', 'bigg:neck')), "no teacher 'bigg'.*'big'"),
        (teachers(student=retina()), dict(a=cwd('neck', 'student:neck')), "'student' is a name that taps use"),
        (dict(big=dict(config=retina())), dict(a=cwd()), r'model\.teacher\.big\.checkpoint: missing'),
        (teachers(big=retina()), dict(a=cwd('big:neck', 'big:neck')), "'big:neck' is not in the student; drop 'big:'"),
        (teachers(a=retina(), b=retina()), dict(t=cwd(['neck', 'neck'], ['a:neck', 'b:neck'])), 'taps of 2 networks'),
        (dict(ema=True, momentum=2), dict(a=cwd()), r'model\.teacher\.momentum: found 2'),
        (dict(ema=True, checkpoint='x'), dict(a=cwd()), "unknown key 'checkpoint'; expected ema=True and momentum"),
        (None, dict(a=cwd()), r'model\.teacher: missing.* for distill\.a\.teacher'),
    ],
)
def test_errors(teacher, terms, says):
    with pytest.raises(ConfigError, match=says):
        model_of(retina(), teacher, terms)


# ------------------------------------------------------------------------------------------------ self-distillation


def test_deeper_layers_teach_shallower_ones():
    """No teacher at all; the deeper layer gets no gradient from the term."""
    term = dict(
        student='backbone.layer2', teacher='student:backbone.layer4', loss=dict(type='kd_det.ATLoss'), weight=100.0
    )
    model = model_of(retina(), None, dict(byot=term))
    assert model.teacher is None
    losses = model.loss(*batch(model))
    losses['loss_byot'].backward()
    grads = {name: p.grad for name, p in model.student.named_parameters() if p.grad is not None}
    assert bool(grads['backbone.layer2.0.downsample.0.weight'].abs().sum() > 0)
    assert not any(name.startswith(('backbone.layer3', 'backbone.layer4')) for name in grads)


def test_what_teaches_carries_no_gradient():
    term = dict(cwd('neck[0]', 'student:neck[0]'), inputs=dict(theirs='teacher:neck', ours='neck'))
    model = model_of(retina(), None, dict(a=term))
    seen = {}
    model.terms[0].forward = lambda s, t, context: seen.update(context, s=s, t=t) or {}
    model.loss(*batch(model))
    assert seen['s'].requires_grad and seen['ours'][0].requires_grad
    assert not seen['t'].requires_grad and not seen['theirs'][0].requires_grad


# ----------------------------------------------------------------------------------------------------- mean teacher


def test_nothing_is_inherited_from_the_average():
    with pytest.raises(ConfigError, match="model.inherit: 'neck' is of the student or of its average"):
        model_of(retina(), dict(ema=True), dict(a=cwd()), inherit=['neck'])


def test_the_average_moves_as_the_formula_says():
    model = model_of(retina(), dict(ema=True, momentum=0.25), dict(a=cwd()))
    with pytest.raises(ConfigError, match='add dict.*EMATeacherHook'):
        model.loss(*batch(model))
    model.teacher.follow(model.student)
    start = copy.deepcopy(model.student.state_dict())
    assert all(torch.equal(v, start[k]) for k, v in model.teacher.model.state_dict().items())
    with torch.no_grad():
        for p in model.student.parameters():
            p.add_(0.01)
    model.teacher.follow(model.student)
    name = 'backbone.layer1.0.conv1.weight'
    assert torch.allclose(model.teacher.model.state_dict()[name], start[name] + 0.0025, atol=1e-6)
    losses = model.loss(*batch(model))
    assert losses['loss_a'] > 0
    losses['loss_a'].backward()
    assert all(p.grad is None for p in model.teacher.model.parameters()) and not model.teacher.model.training


# -------------------------------------------------------------------------------------------------------- the wrapper


def test_the_wrapper_has_what_the_student_has():
    model = distiller(retina(), retina(), dict(a=cwd()))
    assert model.bbox_head is model.student.bbox_head and model.with_neck
    with pytest.raises(AttributeError):
        _ = model.nothing_of_that_name
    assert copy.deepcopy(model).neck is not model.neck
