"""The teacher as an inference engine: folded, reordered, in half precision, compiled; its readings stay the same."""

import pytest
import torch
from mmdet.models.backbones.resnet import ResNet
from tiny_models import AS_LOADED, backbone, batch, cascade, cwd, deformable, distiller, faster, fcos, gfl, retina, ssd
from torch import nn

from kd_det.detectors import distill_detector as wrapper_module
from kd_det.detectors import teacher as teacher_module
from kd_det.detectors.inference import fold_batch_norms, relative_error, to_plain, trace, unfold
from kd_det.errors import ConfigError


def randomise(network, seed=1):
    """Norms with statistics and weights of their own, as trained ones have."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.1, generator=generator)
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)


def readings(model, images, samples):
    """What the teacher's taps read, plain."""
    taps = model._teacher_taps['']
    model.teacher.observe(images, samples, taps)
    found = [tensor.clone() for tensor in taps.tensors()]
    taps.clear()
    return found


def plain_and_fast(student, teacher, terms, **engine):
    """Readings of the same teacher as mmdet runs it, and made fast; and the fast model."""
    found = []
    for options in (dict(AS_LOADED, precision='fp32'), engine):
        model = distiller(student, teacher, terms, engine=options)
        randomise(model.teacher.model)
        images, samples = batch(model)
        model.prepare_teacher('', images, samples)
        found.append(readings(model, images, samples))
    return *found, model


@pytest.fixture
def log(monkeypatch):
    """What the teacher and its wrapper log."""
    lines = []
    for module in (teacher_module, wrapper_module):
        monkeypatch.setattr(module, 'print_log', lambda message, *args, **kwargs: lines.append(message))
    return lines


def norms(network):
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


# ------------------------------------------------------------------------------------------------------------- folding


@pytest.mark.parametrize('family', [retina, fcos, gfl, faster, cascade, ssd, deformable])
def test_features_of_every_family_are_the_plain_ones(family):
    """Folded and channels last: equal to 1e-5, relative to the root mean square of each reading."""
    deep = family in (retina, fcos, gfl)
    tap = 'bbox_head.cls_convs.0' if deep else 'encoder' if family is deformable else 'neck'
    terms = dict(a=cwd('backbone.layer3' if family is not ssd else 'neck', None if family is not ssd else 'neck'))
    if family is not deformable:
        terms['b'] = cwd(tap)
    plain, fast, model = plain_and_fast(family(), family(), terms)
    assert len(plain) == len(fast) and len(norms(model.teacher.model)) < len(norms(family_of(model)))
    assert relative_error(fast, plain) < 1e-5
    assert all(tensor.is_contiguous() and not tensor.is_inference() for tensor in fast)


def family_of(model):
    return model.student


def test_the_running_norms_of_a_resnet_are_all_folded():
    _, _, model = plain_and_fast(retina(), retina(), dict(a=cwd('neck')))
    assert not norms(model.teacher.model.backbone)
    assert all(conv.bias is not None for conv in model.teacher.model.backbone.modules() if isinstance(conv, nn.Conv2d))


def test_a_norm_that_somebody_reads_stays():
    taps = dict(a=cwd('backbone.layer2.0.bn1'), b=cwd('backbone.layer3.0.conv1'), c=cwd('neck'))
    plain, fast, model = plain_and_fast(retina(), retina(), taps)
    net = model.teacher.model.backbone
    assert isinstance(net.layer2[0].bn1, nn.BatchNorm2d) and isinstance(net.layer3[0].bn1, nn.BatchNorm2d)
    assert isinstance(net.layer2[0].bn2, nn.Identity)
    assert relative_error(fast, plain) < 1e-5


def test_a_method_of_the_teacher_is_read_as_before():
    """A tap of a method, and one before an activation."""
    taps = dict(a=cwd('backbone.layer2@pre'), b=cwd('bbox_head.forward()[0]'))
    plain, fast, _ = plain_and_fast(retina(), retina(), taps)
    assert relative_error(fast, plain) < 1e-5


class Shared(nn.Module):
    """One convolution with a norm per level, as in RTMDet's head, and a pair that is one."""

    def __init__(self):
        super().__init__()
        self.conv, self.own = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(2))
        self.own_norm, self.loose, self.twice = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        self.twice_norm = nn.BatchNorm2d(4)

    def forward(self, x):
        levels = [self.own_norm(self.own(norm(self.conv(x)))) for norm in self.norms]
        raw = self.twice(levels[0])
        return *levels, self.loose(levels[0] + levels[1]), self.twice_norm(raw), raw


def test_only_a_norm_that_alone_reads_its_convolution_is_folded():
    """``twice`` is read by its norm and, raw, by the caller: that cannot be seen from hooks, so a tap on it says so."""
    torch.manual_seed(0)
    net = Shared().eval()
    randomise(net)
    x = torch.randn(2, 3, 6, 5)
    with torch.no_grad():
        before = net(x)
        with trace(net) as found:
            net(x)
        assert {norm for _, norm in found.pairs} == {net.own_norm, net.twice_norm}
        done = fold_batch_norms(net, found.pairs, kept=[net.twice])
        after = net(x)
        assert len(done) == 1 and isinstance(net.own_norm, nn.Identity)
        assert relative_error(after, before) < 1e-6
        unfold(done)
        assert all(map(torch.equal, net(x), before))


def test_a_folding_that_changes_readings_is_undone(log):
    """A teacher whose convolution is read raw as well, out of sight of any hook."""
    model = distiller(retina(), retina(), dict(a=cwd('neck')), engine=dict(channels_last=False))
    net = model.teacher.model
    randomise(net)
    block = net.backbone.layer1[0]
    inner = block.forward
    block.forward = lambda x: inner(x) + block.conv1(x)  # what conv1 gives is used twice
    images, samples = batch(model)
    model.prepare_teacher('', images, samples)
    assert isinstance(block.bn1, nn.BatchNorm2d) and norms(net)
    assert 'batch norms left as they are, since folded ones changed readings by' in ' '.join(log)
    assert 'readings differ by 0.0e+00' in ' '.join(log)


# ---------------------------------------------------------------------------------------------------------- precision


def test_half_precision_is_near_and_read_as_float32():
    plain, fast, model = plain_and_fast(retina(), retina(), dict(a=cwd('neck')), precision='bf16')
    assert model.teacher.model.backbone.layer1[0].conv1.weight.dtype == torch.bfloat16
    assert all(tensor.dtype == torch.float32 for tensor in fast)
    assert 1e-5 < relative_error(fast, plain) < 0.05


def test_without_being_asked_a_cpu_computes_in_float32_and_an_autocast_is_followed():
    model = distiller(retina(), retina(), dict(a=cwd('neck')))
    assert model.teacher._dtype('cpu') is None
    with torch.autocast('cpu', torch.bfloat16):
        assert model.teacher._dtype('cpu') is torch.bfloat16
        images, samples = batch(model)
        assert torch.isfinite(model.loss(images, samples)['loss_a'])
    assert model.teacher.model.backbone.conv1.weight.dtype == torch.bfloat16


def test_float32_that_was_asked_for_stays_under_an_autocast():
    terms = dict(a=cwd('neck'))
    model = distiller(retina(), retina(), terms, engine=dict(precision='fp32'))
    images, samples = batch(model)
    model.prepare_teacher('', images, samples)
    alone = readings(model, images, samples)
    with torch.autocast('cpu', torch.bfloat16):
        assert all(map(torch.equal, readings(model, images, samples), alone))


def test_a_misspelt_precision_is_an_error():
    with pytest.raises(
        ConfigError, match=r"model.teacher.precision: found 'fb16', expected auto, .*Nearest: 'fp16', 'bf16'"
    ):
        distiller(retina(), retina(), dict(a=cwd()), engine=dict(precision='fb16'))


# ------------------------------------------------------------------------------------------------------ what is said


def test_the_log_says_once_what_was_done_and_what_it_changed(log):
    model = distiller(retina(), retina(), dict(a=cwd('neck')))
    for _ in range(2):
        model.loss(*batch(model))
    (line,) = [line for line in log if 'readings differ' in line]
    assert line.startswith('teacher: 20 batch norms folded, channels last; readings differ by ')
    assert float(line.split(' by ')[1].split()[0]) < 1e-5
    assert 'no tap needs bbox_head; freed' in ' '.join(log)
    assert not hasattr(model.teacher.model, 'bbox_head')


def test_a_head_that_is_read_stays():
    model = distiller(retina(), retina(), dict(a=cwd('bbox_head[0]')))
    model.loss(*batch(model))
    assert hasattr(model.teacher.model, 'bbox_head')


def test_teachers_that_no_running_term_asks_are_left_alone():
    model = distiller(retina(), retina(), dict(a=cwd('neck')))
    model.terms[0].factor = 0.0
    model.loss(*batch(model))
    assert len(norms(model.teacher.model)) == 20
    model.terms[0].factor = 1.0
    model.loss(*batch(model))
    assert not norms(model.teacher.model)


def test_preparing_draws_no_random_numbers():
    """A teacher read during its own ``loss`` draws RoIs: the student's draws stay what they were."""
    states = []
    for engine in (AS_LOADED, None):
        model = distiller(retina(), retina(), dict(a=cwd('neck')), engine=engine)
        torch.manual_seed(3)
        model.loss(*batch(model))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


# ------------------------------------------------------------------------------------------------------------- compile


def test_compiling_that_fails_says_why_and_goes_on(monkeypatch, log):
    def broken(function):
        def call(*args, **kwargs):
            raise RuntimeError('no compiler here')

        return call

    monkeypatch.setattr(torch, 'compile', broken)
    plain, fast, _ = plain_and_fast(retina(), retina(), dict(a=cwd('neck')), compile=True)
    assert 'backbone runs uncompiled: RuntimeError: no compiler here' in ' '.join(log)
    assert relative_error(fast, plain) < 1e-5


def test_parts_with_taps_inside_are_not_compiled(monkeypatch, log):
    compiled = []
    monkeypatch.setattr(torch, 'compile', lambda function: compiled.append(function.__self__) or function)
    _, _, model = plain_and_fast(retina(), retina(), dict(a=cwd('backbone.layer2'), b=cwd('neck')), compile=True)
    assert compiled == [model.teacher.model.neck]
    assert 'backbone not compiled, because a tap lies inside it' in ' '.join(log) and 'neck compiled' in ' '.join(log)


@pytest.mark.slow  # a minute of a C++ compiler
def test_a_compiled_teacher_reads_what_the_plain_one_reads():
    plain, fast, _ = plain_and_fast(retina(), retina(), dict(a=cwd('neck')), compile=True)
    assert relative_error(fast, plain) < 1e-5


# --------------------------------------------------------------------------------------------------------------- parts


def test_to_plain():
    with torch.inference_mode():
        half = torch.ones(1, 2, 3, 3, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        indices, plain = torch.arange(3), torch.ones(2, 3)
    found = [to_plain(tensor) for tensor in (half, indices, plain)]
    assert [tensor.dtype for tensor in found] == [torch.float32, torch.int64, torch.float32]
    assert found[0].is_contiguous() and not any(tensor.is_inference() for tensor in found)
    double = torch.ones(2, dtype=torch.float64)
    assert to_plain(double) is double


def test_relative_error():
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
    assert relative_error([b], [a]) == pytest.approx(0.1)
    assert relative_error([a, b], [a, a]) == pytest.approx(0.1)
    assert relative_error([a * 0], [a * 0]) == 0


def test_a_deep_resnet_folds_its_shortcuts_too():
    torch.manual_seed(0)
    net = ResNet(50, base_channels=8)
    net.eval()
    randomise(net)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = net(x)
        with trace(net) as found:
            net(x)
        fold_batch_norms(net, found.pairs)
        assert len(found.pairs) == 53 and not norms(net)
        assert relative_error(net(x), before) < 1e-5


def test_a_folded_norm_moves_with_the_model():
    model = distiller(retina(backbone=backbone()), retina(), dict(a=cwd('neck')))
    norm = model.teacher.model.backbone.bn1
    model.loss(*batch(model))
    model.double()
    assert norm.weight.dtype == torch.float64 and model.teacher.model.backbone.conv1.weight.dtype == torch.float64
