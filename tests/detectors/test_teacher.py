"""The teacher: what it sees, how deep it runs, what it loads."""

import re

import pytest
import torch
from mmengine.config import Config
from tiny_models import (
    AS_LOADED,
    CAFFE,
    backbone,
    batch,
    build,
    cwd,
    distiller,
    faster,
    fcos,
    preprocessor,
    raw_batch,
    retina,
)

from kd_det.detectors import Teacher
from kd_det.errors import CheckpointError, ConfigError


def count_calls(network, *paths):
    calls = dict.fromkeys(paths, 0)

    def hook(path):
        return lambda *_: calls.__setitem__(path, calls[path] + 1)

    for path in paths:
        network.get_submodule(path).register_forward_pre_hook(hook(path))
    return calls


# ----------------------------------------------------------------------------------------------------- how deep it runs


@pytest.mark.parametrize(
    'tap, runs, rests',
    [
        ('neck', ['backbone', 'neck'], ['bbox_head']),
        ('neck[1:]', ['neck'], ['bbox_head']),
        ('neck.fpn_convs.0.conv', ['backbone', 'neck.lateral_convs.2'], ['neck.fpn_convs.1', 'bbox_head']),
        ('backbone.layer3', ['backbone.layer2'], ['backbone.layer4', 'neck', 'bbox_head']),
        ('backbone', ['backbone.layer4'], ['neck', 'bbox_head']),
        ('bbox_head.cls_convs.0', ['neck'], ['bbox_head']),
        ('bbox_head[0]', ['bbox_head'], []),
    ],
)
def test_it_runs_as_deep_as_its_deepest_tap(tap, runs, rests):
    model = distiller(retina(), retina(), dict(a=cwd(tap)), engine=AS_LOADED)
    calls = count_calls(model.teacher.model, *runs, *rests)
    student = count_calls(model.student, 'backbone.layer4', 'neck', 'bbox_head')
    losses = model.loss(*batch(model))
    assert all(calls[path] == 1 for path in runs), calls
    assert not any(calls[path] for path in rests), calls
    assert set(student.values()) == {1}  # the student runs whole, once
    assert torch.isfinite(losses['loss_a'])


def test_neck_taps_of_a_two_stage_teacher_run_no_head():
    model = distiller(fcos(), faster(), dict(a=cwd('neck')), engine=AS_LOADED)
    calls = count_calls(model.teacher.model, 'neck', 'rpn_head', 'roi_head.bbox_head', 'roi_head.bbox_roi_extractor')
    model.loss(*batch(model))
    assert list(calls.values()) == [1, 0, 0, 0]


def test_the_deepest_of_several_taps_counts():
    terms = dict(a=cwd('backbone.layer2'), b=cwd('bbox_head.cls_convs.0'))
    model = distiller(retina(), retina(), terms, engine=AS_LOADED)
    calls = count_calls(model.teacher.model, 'backbone.layer2', 'bbox_head.cls_convs.0', 'bbox_head.retina_cls')
    model.loss(*batch(model))
    # one call per level; the last level's prediction would come after it and is not made
    assert list(calls.values()) == [1, 3, 2]


def test_a_method_tap_reads_each_networks_own_call():
    model = distiller(retina(), retina(), dict(a=cwd('bbox_head.forward()[0]')))
    plain = distiller(retina(), retina(), dict(a=cwd('bbox_head[0]')))
    ours, theirs = (m.loss(*batch(m)) for m in (model, plain))
    assert torch.equal(ours['loss_a'], theirs['loss_a'])
    for network in (model.student, model.teacher.model):
        assert 'forward' not in network.bbox_head.__dict__


# ------------------------------------------------------------------------------------------------- frozen, in eval mode


def test_it_is_frozen_and_in_eval_mode_whatever_the_wrapper_does():
    teacher = retina(backbone=backbone(norm_eval=False))
    model = distiller(retina(backbone=backbone(norm_eval=False)), teacher, dict(a=cwd()), engine=AS_LOADED)
    for wrapper_mode in (True, False, True):
        model.train(wrapper_mode)
        assert not any(module.training for module in model.teacher.model.modules())
    buffers = {k: v.clone() for k, v in model.teacher.model.state_dict().items()}
    ours = {k: v.clone() for k, v in model.student.named_buffers()}
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        optimiser.zero_grad()
        sum(v for k, v in model.loss(*batch(model)).items() if k == 'loss_a').backward()
        optimiser.step()
    for key, value in model.teacher.model.state_dict().items():
        assert torch.equal(value, buffers[key]), key
    assert any(not torch.equal(v, ours[k]) for k, v in model.student.named_buffers() if 'running_mean' in k)
    for parameter in model.teacher.model.parameters():
        assert not parameter.requires_grad and parameter.grad is None


def test_dropout_and_drop_path_of_the_teacher_are_off():
    from mmcv.cnn.bricks import DropPath

    model = distiller(retina(), retina(), dict(a=cwd('backbone')), init=False)
    layer = model.teacher.model.backbone.layer4
    layer.add_module('drop', torch.nn.Sequential(torch.nn.Dropout(0.5), DropPath(0.5)))
    model.init_weights()  # freezes again what load finds
    model.train()
    images, samples = batch(model)
    seen = []
    layer.drop.register_forward_hook(lambda m, i, o: seen.append((i[0].clone(), o.clone())))
    model.teacher.observe(images, samples, model._teacher_taps[''])
    assert torch.equal(*seen[0]) and not layer.drop.training


def test_its_readings_have_no_graph():
    model = distiller(retina(), retina(), dict(a=cwd()))
    images, samples = batch(model)
    model.teacher.observe(images, samples, model._teacher_taps[''])
    for level in model._teacher_taps[''].read(model.terms[0].teacher_tap):
        assert not level.requires_grad and level.grad_fn is None


# ---------------------------------------------------------------------------------------------------- what it is shown


@pytest.mark.parametrize(
    'ours, theirs',
    [
        (dict(), CAFFE),
        (CAFFE, dict()),
        (dict(), dict(mean=None, std=None, bgr_to_rgb=False)),
        (dict(mean=None, std=None, bgr_to_rgb=False), dict()),
        (dict(), dict(CAFFE, pad_value=-7.0)),
        (dict(pad_value=3.0), dict(mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=True)),
    ],
)
def test_it_sees_what_its_own_preprocessor_would_have_made(ours, theirs):
    student, teacher = (retina(data_preprocessor=preprocessor(**options)) for options in (ours, theirs))
    model = distiller(student, teacher, dict(a=cwd()), engine=AS_LOADED)
    raw = dict(sizes=[(64, 96), (50, 70)])
    own = build(teacher).data_preprocessor(raw_batch(**raw), True)['inputs']
    seen = []
    model.teacher.model.backbone.register_forward_pre_hook(lambda m, i: seen.append(i[0].clone()))
    inputs, samples = batch(model, **raw)
    before = inputs.clone()
    model.loss(inputs, samples)
    assert seen[0].shape == own.shape == (2, 3, 64, 96)
    torch.testing.assert_close(seen[0], own, rtol=0, atol=1e-4)
    assert torch.equal(inputs, before)  # the student's batch is left alone
    assert model.teacher.converts_images
    assert 'own mean, std and channel order' in model.plan.table()


def test_equal_preprocessors_share_the_batch():
    model = distiller(retina(), retina(), dict(a=cwd()))
    inputs, samples = batch(model)
    assert model.teacher.images(inputs, samples) is inputs
    assert 'channel order' not in model.plan.table()


# ------------------------------------------------------------------------------------------------------ how it is named


def test_it_is_named_as_mmdet_config_path_dict_or_kd_det_config(tmp_path):
    cfg = retina(channels=24)
    plain = tmp_path / 'plain.py'
    Config(dict(model=cfg, default_scope='mmdet')).dump(plain)
    wrapped = tmp_path / 'wrapped.py'
    kd = dict(type='kd_det.DistillDetector', student=cfg, teacher=dict(config='x', checkpoint=None), distill={})
    Config(dict(model=kd)).dump(wrapped)
    top = {k: v for k, v in cfg.items() if k != 'data_preprocessor'}
    apart = dict(model=top, data_preprocessor=preprocessor(**CAFFE))
    for config in (cfg, dict(model=cfg), str(plain), plain, str(wrapped), Config.fromfile(plain), apart):
        teacher = Teacher(config, None)
        assert type(teacher.model).__name__ == 'RetinaNet'
        assert teacher.model.neck.out_channels == 24
    assert teacher.model.data_preprocessor.mean.flatten().tolist() == pytest.approx(CAFFE['mean'])
    named = Teacher('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', None)
    assert named.model.backbone.depth == 18 and named.model.bbox_head.num_classes == 80


@pytest.mark.parametrize(
    'teacher, says',
    [
        (
            dict(config='mmdet::retinanet/retinanet_r19_fpn_1x_coco.py', checkpoint=None),
            r'Nearest: .*retinanet_r18_fpn_1x',
        ),
        (dict(config='nowhere::a.py', checkpoint=None), "no package 'nowhere' is installed"),
        (dict(config='no/such.py', checkpoint=None), "model.teacher.config: 'no/such.py' does not exist"),
        (dict(config=3, checkpoint=None), 'model.teacher.config: found int, expected'),
        (dict(config=dict(modle=1), checkpoint=None), r"no model in it.*'modle'"),
        (dict(checkpoint=None), 'model.teacher.config: missing'),
        (dict(config='a.py'), r'model.teacher.checkpoint: missing.*checkpoint=None'),
        (dict(config='a.py', checkpiont=None), "unknown key 'checkpiont'.*Nearest: 'checkpoint'"),
        ('a.py', "model.teacher: found 'a.py', expected dict"),
    ],
)
def test_a_wrong_teacher_is_refused(teacher, says):
    with pytest.raises(ConfigError, match=says):
        Teacher.from_config(teacher)


# -------------------------------------------------------------------------------------------------------- what it loads


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """One detector's weights as plain mmdet, kd_det and mmrazor write them."""
    folder = tmp_path_factory.mktemp('ckpt')
    weights = build(retina(), 7).state_dict()
    torch.save(dict(meta={}, state_dict=weights), folder / 'mmdet.pth')
    torch.save(weights, folder / 'bare.pth')
    wrapped = {f'student.{k}': v for k, v in weights.items()} | {'distill.a.adapter.convs.0.weight': torch.ones(1)}
    torch.save(dict(meta={}, state_dict=wrapped), folder / 'kd_det.pth')
    razor = {f'architecture.{k}': v for k, v in weights.items()} | {f'teacher.{k}': v * 0 for k, v in weights.items()}
    torch.save(dict(meta={}, state_dict=razor), folder / 'mmrazor.pth')
    torch.save(dict(state_dict={f'module.{k}': v for k, v in weights.items()}), folder / 'ddp.pth')
    return folder, weights


@pytest.mark.parametrize('name', ['mmdet', 'bare', 'kd_det', 'mmrazor', 'ddp'])
def test_checkpoints_of_all_kinds_are_recognised(name, trained):
    folder, weights = trained
    model = distiller(retina(), retina(), dict(a=cwd()), checkpoint=str(folder / f'{name}.pth'))
    for key, value in model.teacher.model.state_dict().items():
        assert torch.equal(value, weights[key]), key
    assert not torch.equal(model.student.neck.fpn_convs[0].conv.weight, weights['neck.fpn_convs.0.conv.weight'])


def saved(path, weights):
    torch.save(dict(state_dict=weights), path)
    return str(path)


def test_what_does_not_fit_stops_with_a_report(trained, tmp_path):
    weights = trained[1]
    missing = {k: v for k, v in weights.items() if 'retina_cls' not in k}
    extra = dict(weights, **{'mask_head.conv.weight': torch.ones(2)})
    shaped = dict(weights, **{'bbox_head.retina_cls.bias': torch.ones(5)})
    for name, state, says in (
        ('missing', missing, '2 missing (bbox_head.retina_cls.weight, bbox_head.retina_cls.bias)'),
        ('extra', extra, '1 unexpected (mask_head.conv.weight)'),
        ('shaped', shaped, '1 mis-shaped (bbox_head.retina_cls.bias (5,) for (6,))'),
    ):
        path = saved(tmp_path / f'{name}.pth', state)
        with pytest.raises(CheckpointError, match=re.escape(says)) as error:
            Teacher(retina(), path).load()
        assert str(error.value).startswith(f'model.teacher.checkpoint: {path!r}')
        assert 'does not fit RetinaNet' in str(error.value) and 'model.teacher.strict=False' in str(error.value)
        teacher = Teacher(retina(), path, strict=False)
        own = teacher.model.bbox_head.retina_cls.bias.clone()
        teacher.load()
        assert torch.equal(teacher.model.bbox_head.retina_reg.weight, weights['bbox_head.retina_reg.weight'])
        kept = teacher.model.bbox_head.retina_cls.bias
        assert torch.equal(kept, weights['bbox_head.retina_cls.bias'] if name == 'extra' else own)


def test_another_architecture_or_class_count_is_refused(trained):
    path = str(trained[0] / 'mmdet.pth')
    with pytest.raises(CheckpointError, match=r'mis-shaped \(bbox_head.retina_cls.weight \(6, 16, 3, 3\) for \(10, 16'):
        Teacher(retina(classes=5), path).load()
    with pytest.raises(CheckpointError, match='does not fit FasterRCNN.*missing.*unexpected'):
        Teacher(faster(), path).load()


def test_nothing_in_common_stops_even_when_not_strict(tmp_path):
    path = saved(tmp_path / 'other.pth', {'encoder.weight': torch.ones(3)})
    with pytest.raises(CheckpointError, match='does not fit RetinaNet'):
        Teacher(retina(), path, strict=False).load()


class Runs:
    def __reduce__(self):
        return (print, ('code ran',))


def test_damaged_files_and_files_with_code_are_refused(trained, tmp_path, capsys):
    whole = (trained[0] / 'mmdet.pth').read_bytes()
    (tmp_path / 'cut.pth').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'empty.pth').write_bytes(b'')
    (tmp_path / 'page.pth').write_text('<html>404</html>')
    torch.save(dict(state_dict=trained[1], evil=Runs()), tmp_path / 'evil.pth')
    for name, says in (
        ('cut', 'truncated'), ('empty', 'truncated'), ('page', 'is not a checkpoint'), ('evil', 'holds code'),
        ('none', 'does not exist'),
    ):  # fmt: skip
        teacher = Teacher(retina(), str(tmp_path / f'{name}.pth'))
        with pytest.raises(CheckpointError, match=f'model.teacher.checkpoint: .*{name}.pth.*{says}'):
            teacher.load()
        assert not teacher.loaded
    assert 'code ran' not in capsys.readouterr().out


def test_it_is_loaded_once_and_not_for_prediction(trained, tmp_path):
    model = distiller(retina(), retina(), dict(a=cwd()), checkpoint=str(tmp_path / 'absent.pth'), init=False)
    model.eval()
    with torch.no_grad():
        model.predict(*batch(model, training=False))  # needs no teacher
    with pytest.raises(CheckpointError, match='absent.pth.*does not exist'):
        model.train().loss(*batch(model))
    model.teacher.checkpoint = saved(tmp_path / 'now.pth', trained[1])
    model.loss(*batch(model))  # a wrapper whose init_weights was never called loads at its first step
    (tmp_path / 'now.pth').unlink()
    model.loss(*batch(model))
