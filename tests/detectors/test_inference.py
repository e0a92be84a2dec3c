"""The teacher as an inference engine: folded, reordered, in half precision, compiled; its readings stay the same."""

import copy

import pytest
import torch
from mmdet.models.backbones.resnet import ResNet
from tiny_models import (
    AS_LOADED,
    backbone,
    batch,
    cascade,
    cwd,
    deformable,
    distiller,
    faster,
    fcos,
    fpn,
    gfl,
    retina,
    ssd,
)
from torch import nn

from kd_det.detectors import distill_detector as wrapper_module
from kd_det.detectors import teacher as teacher_module
from kd_det.detectors.inference import fold_batch_norms, relative_error, to_plain, trace, unfold
from kd_det.detectors.teacher import EMATeacher, Teacher
from kd_det.errors import ConfigError
from kd_det.taps import Tap, TapSet


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


@pytest.mark.parametrize('tap', ['rpn_head.get_targets()', 'roi_head.bbox_head.get_targets()'])
def test_preparing_draws_no_random_numbers(tap, log):
    """A teacher that is read during its own ``loss`` draws rows: the same ones each time, and others' draws stay."""
    images, samples = batch(distiller(faster(), faster(), dict(a=cwd('neck'))))
    teacher = Teacher(faster(), None)
    teacher.load()
    randomise(teacher.model)
    taps = TapSet(teacher.model, [Tap.parse('neck'), Tap.parse(tap)], 'teacher', guest=True)
    teacher.probe(images, samples, taps, 'teacher')
    state = torch.get_rng_state()
    teacher.prepare(images, samples, taps)
    assert torch.equal(state, torch.get_rng_state())
    assert not norms(teacher.model.backbone)
    assert float(log[-1].split('differ by ')[1].split()[0]) < 1e-5
    teacher.run(images, samples, taps)
    assert not torch.equal(state, torch.get_rng_state())  # it does draw


def test_preparing_twice_changes_nothing(log):
    model = distiller(retina(), retina(), dict(a=cwd('neck')), engine=dict(precision='bf16'))
    twin = copy.deepcopy(model)  # made before the first step, as EMA hooks do
    images, samples = batch(model)
    model.loss(images, samples)
    folded = list(model.teacher._norms)
    assert torch.isfinite(twin.loss(images, samples)['loss_a'])
    assert len(folded) == 20 and twin.teacher._norms == folded and len([x for x in log if 'differ by' in x]) == 1


# ------------------------------------------------------------------------------------- what must not be made fast


def deformable_backbone():
    dcn = dict(type='DCNv2', deform_groups=1, fallback_on_stride=False)
    return retina(
        backbone=dict(backbone(), depth=50, dcn=dcn, stage_with_dcn=(False, True, True, True)),
        neck=fpn(32, 16),
    )


def test_operators_that_read_nchw_get_it(log):
    """mmcv's deformable convolutions give wrong numbers, silently, on maps and weights in NHWC order."""
    found = []
    for engine in (dict(AS_LOADED, precision='fp32'), dict()):
        model = distiller(retina(), deformable_backbone(), dict(a=cwd('neck')), engine=engine)
        randomise(model.teacher.model)
        generator = torch.Generator().manual_seed(2)
        for module in model.teacher.model.modules():
            if hasattr(module, 'conv_offset'):
                module.conv_offset.weight.data.normal_(0, 0.1, generator=generator)
        images, samples = batch(model)
        model.prepare_teacher('', images, samples)
        found.append(readings(model, images, samples))
    assert relative_error(*found) < 1e-5
    assert 'NCHW order for ModulatedDeformConv2dPack' in log[-1] and 'batch norms folded' in log[-1]


class Flattens(nn.Module):
    """A neck that reads memory as it lies."""

    def forward(self, maps):
        return [x.as_strided(x.shape, (x[0].numel(), x[0, 0].numel(), x.shape[3], 1)) for x in maps]


def test_an_order_that_changes_readings_is_undone(log):
    model = distiller(retina(), retina(), dict(a=cwd('backbone'), b=cwd('neck')))
    backbone_ = model.teacher.model.backbone
    inner = backbone_.forward
    backbone_.forward = lambda x: tuple(Flattens()(inner(x)))
    images, samples = batch(model)
    model.prepare_teacher('', images, samples)
    assert 'NCHW order, since NHWC changed readings by' in log[-1]
    assert not model.teacher.channels_last and backbone_.conv1.weight.is_contiguous()
    assert float(log[-1].split('differ by ')[1].split()[0]) < 1e-5


@pytest.mark.parametrize('tap', ['decoder', 'bbox_head'])
def test_parts_that_are_read_without_a_call_stay(tap, log):
    """The queries of a DETR are an embedding whose weight is read."""
    terms = dict(a=dict(student=tap, teacher=tap, loss=dict(type='mmrazor.L2Loss')))
    model = distiller(deformable(), deformable(), terms)
    model.loss(*batch(model))
    assert hasattr(model.teacher.model, 'query_embedding')


class Activated(nn.Module):
    """Between convolution and norm an activation in place, as in ``ConvModule(order=('conv', 'act', 'norm'))``."""

    def __init__(self, norm=nn.BatchNorm2d):
        super().__init__()
        self.conv, self.act, self.norm = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), norm(4)

    def forward(self, x):
        return self.norm(self.act(self.conv(x)))


class NormWithActivation(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class Straight(nn.Module):
    def __init__(self, norm=nn.BatchNorm2d, change=None):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), norm(4)
        if change:
            change(self)

    def forward(self, x):
        return self.norm(self.conv(x))


@pytest.mark.parametrize(
    'net, folds',
    [
        (Activated(), False),
        (Straight(), True),
        (Straight(nn.SyncBatchNorm), True),
        (Straight(NormWithActivation), False),
        (Straight(change=lambda net: nn.utils.parametrizations.weight_norm(net.conv)), False),
        (Straight(change=lambda net: nn.utils.parametrizations.spectral_norm(net.conv)), False),
        (Straight(change=lambda net: net.norm.register_forward_hook(lambda *args: args[2] + 1)), False),
        (Straight(change=lambda net: net.conv.register_forward_pre_hook(lambda _, x: (x[0] + 1,))), False),
    ],
    ids=['activation', 'plain', 'sync', 'own forward', 'weight norm', 'spectral norm', 'hook', 'pre-hook'],
)
def test_what_is_no_affine_map_is_not_folded(net, folds):
    net.eval()
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        before = net(x)
        with trace(net) as found:
            net(x)
        fold_batch_norms(net, found.pairs)
        assert isinstance(net.norm, nn.Identity) == folds
        assert relative_error([net(x)], [before]) < 1e-6


def test_the_mean_teacher_computes_as_the_student_does(monkeypatch):
    """Not in half precision on a GPU, unless the step does."""
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda *args: True)
    assert Teacher(retina(), None)._dtype('cuda') is torch.bfloat16
    assert EMATeacher(retina())._dtype('cuda') is None


# ------------------------------------------------------------------------------------------------------------- compile


@pytest.mark.parametrize('option', ['fold', 'channels_last', 'compile'])
def test_a_switch_that_is_no_switch_is_an_error(option):
    with pytest.raises(ConfigError, match=f"model.teacher.{option}: found 'false', expected True or False"):
        distiller(retina(), retina(), dict(a=cwd()), engine={option: 'false'})


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
    assert relative_error([a * 0 + 1e-8], [a * 0]) < 1e-7
    odd, inf = torch.tensor([3.0, float('nan')]), torch.tensor([3.0, float('inf')])
    assert relative_error([odd], [a]) == relative_error([a], [odd]) == relative_error([odd], [inf]) == float('inf')
    assert relative_error([odd, inf], [odd, inf]) == 0 and relative_error([-inf], [inf]) == float('inf')
    assert relative_error([a], [a[:1]]) == float('inf')


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
