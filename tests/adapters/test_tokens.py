import functools

import pytest
import torch
from tiny_models import AS_LOADED, batch, build, cwd, deformable, dino, distiller
from torch.utils.checkpoint import checkpoint

from kd_det.adapters.tokens import tokens_to_maps
from kd_det.errors import ConfigError


def encoder(adapter=None, **changes):
    return dict(cwd('encoder'), adapter=dict(type='kd_det.TokenMaps', **(adapter or {})), **changes)


def levels(outs, cfg=None):
    """Deformable DETR with more or fewer levels."""
    cfg = cfg or deformable()
    cfg['num_feature_levels'] = cfg['neck']['num_outs'] = outs
    for part, name in (('encoder', 'self_attn_cfg'), ('decoder', 'cross_attn_cfg')):
        layer = cfg[part]['layer_cfg']
        layer[name] = dict(layer[name], num_levels=outs)
    return cfg


@pytest.mark.parametrize('family', [deformable, dino])
def test_maps_are_those_that_mmdet_flattened(family):
    model = build(family(), 0).eval()
    images, samples = batch(model, sizes=((64, 96), (40, 60)))
    with torch.no_grad():
        maps = model.extract_feat(images)
        tokens = model.pre_transformer(maps, samples)[0]['feat']
    found = tokens_to_maps(tokens, [level.shape[-2:] for level in maps])
    assert len(found) == len(maps) == 3
    assert all(torch.equal(a, b) for a, b in zip(found, maps, strict=True))


def test_pairs_are_the_encoders_outputs():
    model = distiller(deformable(), deformable(base=16, channels=24), dict(cwd=encoder()), engine=AS_LOADED)
    assert [tuple(conv.weight.shape) for conv in model.terms[0].adapter.align.convs] == [(24, 16, 1, 1)] * 3
    assert [row.adapter for row in model.plan.rows] == ['tokens to maps, 1x1 16→24'] * 3
    images, samples = batch(model)
    seen = []
    model.terms[0].adapter.register_forward_hook(lambda module, args, pairs: seen.append(pairs))
    outputs = []
    model.teacher.model.encoder.register_forward_hook(lambda module, args, output: outputs.append(output), prepend=True)
    losses = model.loss(images, samples)
    assert losses['loss_cwd'] > 0
    (pairs,) = seen
    sizes = [(8, 12), (4, 6), (2, 3)]
    assert [tuple(p.student.shape) for p in pairs] == [tuple(p.teacher.shape) for p in pairs]
    assert [tuple(p.teacher.shape) for p in pairs] == [(2, 24, *size) for size in sizes]
    cells, start = outputs[-1], 0  # the first ones tell which parts may go
    for pair, (h, w) in zip(pairs, sizes, strict=True):
        for y, x in ((0, 0), (h - 1, 1), (1, w - 1)):  # row by row, as the maps were
            assert torch.equal(pair.teacher[:, :, y, x], cells[:, start + y * w + x])
        start += h * w


def test_checkpointed_layers_get_the_same_gradient():
    """Gradient checkpointing of the encoder's layers (``num_cp``), with torch's own function."""
    gradients = []
    for checkpointed in (False, True):
        model = distiller(deformable(), deformable(base=16), dict(cwd=encoder()))
        layer = model.student.encoder.layers[0]
        if checkpointed:
            layer.forward = functools.partial(checkpoint, layer.forward, use_reentrant=False)
        model.loss(*batch(model))['loss_cwd'].backward()
        gradients.append([p.grad for p in layer.parameters()])
    assert any(grad.abs().sum() > 0 for grad in gradients[0])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_chosen_levels():
    """Four scales beside three: the teacher's first three."""
    student, teacher = deformable(), levels(4)
    with pytest.raises(
        ConfigError, match=r'distill.cwd: the encoder of the student has 3 levels, that of the teacher 4'
    ):
        distiller(student, teacher, dict(cwd=encoder()))
    model = distiller(student, teacher, dict(cwd=encoder(dict(teacher_levels=[0, 1, 2]))))
    assert len(model.plan.rows) == 3
    assert model.loss(*batch(model))['loss_cwd'] > 0
    with pytest.raises(ConfigError, match=r'distill.cwd.adapter.student_levels: found \[3\], expected numbers from 0'):
        distiller(student, teacher, dict(cwd=encoder(dict(student_levels=[3], teacher_levels=[0]))))


def test_errors():
    with pytest.raises(
        ConfigError, match=r"distill.cwd.student: found .*, expected the tokens \(B, N, C\) of 'encoder'"
    ):
        distiller(deformable(), deformable(), dict(cwd=dict(encoder(), student='neck', teacher='neck')))
    wrong = dict(maps_student='neck[0:2]')
    with pytest.raises(ConfigError, match=r'504 tokens, but the maps \(16x24, 8x12\) have 480 cells; expected'):
        distiller(deformable(), deformable(), dict(cwd=encoder(inputs=wrong)))
