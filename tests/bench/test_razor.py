"""mmrazor's step does the same work as ours, method by method, and what it cannot do is said."""

from pathlib import Path

import pytest
import torch
from test_speed import SIZE, wide
from tiny_models import atss, backbone, faster, fcos, fpn, gfl, retina, ssd
from torch import Tensor

from kd_det.bench.razor import KINDS, _pairs, razor_detector
from kd_det.bench.setting import make_method
from kd_det.bench.speed import Batch, Job, Steps
from kd_det.detectors.inference import relative_error
from kd_det.errors import ConfigError
from kd_det.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def data():
    return Batch(SIZE, images=2, boxes=3)


def pair_of(terms, student, teacher, kind=KINDS[1], shared=()):
    """Ours and mmrazor's, with the same weights of student and teacher, and some parts alike in these."""
    torch.manual_seed(0)
    teachers = dict(config=teacher, checkpoint=None, precision='fp32', fold=False, channels_last=False)
    ours = MODELS.build(dict(type='kd_det.DistillDetector', student=student, teacher=teachers, distill=terms)).train()
    ours._load_teachers()
    for part in shared:
        getattr(ours.student, part).load_state_dict(getattr(ours.teacher.model, part).state_dict())
    theirs = razor_detector(kind, student, teacher, terms)
    theirs.train()
    theirs.architecture.load_state_dict(ours.student.state_dict())
    theirs.teacher.load_state_dict(ours.teacher.model.state_dict())
    return ours, theirs


#: Layers of our FBKDLoss and of mmrazor's connectors.
FBKD = dict(
    align='adaptation_layers', channel_align='channel_wise_adaptation', spatial_align='spatial_wise_adaptation',
    non_local_align='non_local_adaptation', student_non_local='student_non_local',
    teacher_non_local='teacher_non_local',
)  # fmt: skip
NON_LOCAL = {
    'theta': 'theta.conv', 'phi': 'phi.0.0.conv', 'g': 'g.0.0.conv', 'conv_out': 'conv_out.conv', 'bn': 'conv_out.bn'
}  # fmt: skip


def layers_of(*modules):
    return [part for module in modules for part in module.modules() if isinstance(getattr(part, 'weight', 0), Tensor)]


def fbkd_layers(losses, connectors):
    """The same layers of both, in the same order."""
    mine, copies = [], []
    for loss, (student,), (teacher,) in zip(losses, connectors[::2], connectors[1::2], strict=True):
        for ours, theirs in FBKD.items():
            a, b = loss.get_submodule(ours), (teacher if 'teacher' in ours else student).get_submodule(theirs)
            if 'non_local' in ours and 'align' not in ours:
                torch.nn.init.ones_(a.bn.weight)  # else the block adds nothing
                pairs = [(a.get_submodule(key), b.get_submodule(value)) for key, value in NON_LOCAL.items()]
            else:
                pairs = [(a, b)]
            mine += [a for a, _ in pairs]
            copies += [b for _, b in pairs]
    return mine, copies


def copy_layers(ours, theirs, data):
    """Give the layers of mmrazor's connectors the weights of ours."""
    connectors = list(theirs.distiller.connectors.values())
    if not any(True for _ in theirs.distiller.parameters()):
        return
    ours.loss(data.inputs, data.samples)  # it makes them
    losses = [loss for term in ours.terms for loss in term.losses]
    if type(losses[0]).__name__ == 'FBKDLoss':
        mine, copies = fbkd_layers(losses, connectors)
    elif type(losses[0]).__name__ == 'FTLoss':
        mine = layers_of(*(part for loss in losses for part in (loss.translator, loss.paraphraser)))
        copies = layers_of(*connectors)
    else:
        mine, copies = layers_of(*ours.terms), layers_of(*connectors)
    for part, copied in zip(mine, copies, strict=True):
        with torch.no_grad():
            copied.weight.copy_(part.weight)
            if copied.bias is not None:
                copied.bias.copy_(part.bias)


def same_work(terms, student, teacher, data, kind=KINDS[1], shared=()):
    """Assert that the distillation losses and their gradients in the student are equal."""
    ours, theirs = pair_of(terms, student, teacher, kind, shared)
    copy_layers(ours, theirs, data)
    torch.manual_seed(1)
    losses = ours.loss(data.inputs, data.samples)
    found = sum(value for key, value in losses.items() if any(key.startswith(f'loss_{name}') for name in terms))
    torch.manual_seed(1)
    expected = sum(v for k, v in theirs.loss(data.inputs, data.samples).items() if k.startswith('distill.'))
    assert found > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)
    found.backward()
    expected.backward()
    both = zip(ours.student.parameters(), theirs.architecture.parameters(), strict=True)
    a, b = zip(*((p.grad.flatten(), q.grad.flatten()) for p, q in both if p.grad is not None))
    assert relative_error([torch.cat(a)], [torch.cat(b)]) < 1e-4


def narrow():
    """A RetinaNet of half the width."""
    return retina(8, neck=dict(fpn(4, 8, 5), start_level=1, add_extra_convs='on_output'), backbone=backbone(4)) | dict(
        bbox_head=dict(wide()['bbox_head'], in_channels=8, feat_channels=8)
    )


def terms_of(name):
    """The terms of a fragment, without what is drawn at random."""
    terms = make_method(name).distill()
    if name.startswith('mgd'):
        terms['mgd']['loss']['lambda_mgd'] = 0.0
    terms.pop('fbkd_p6', None)  # too small here for mmrazor's pooling
    return terms


MAPS = ['ab', 'at', 'cwd', 'cwd_norm', 'fitnet', 'ft', 'mgd', 'ofd', 'pkd']


@pytest.mark.parametrize('name', [*MAPS, 'fbkd', 'mgd_two_stage', 'pkd_two_stage'])
def test_maps(name, data):
    same_work(terms_of(name), wide(), wide(), data, KINDS[0])


@pytest.mark.parametrize('name', MAPS)
def test_maps_of_another_width(name, data):
    same_work(terms_of(name), narrow(), wide(), data)


def test_a_neck_of_several_widths():
    """As many levels as it has widths, each with its own."""
    necks = [dict(type='SSDNeck', in_channels=(16, 32), out_channels=widths) for widths in ((16, 32, 8), (16, 24, 8))]
    student, teacher = (dict(neck=neck) for neck in necks)
    pairs = _pairs('at', make_method('cwd').distill()['cwd'], student, teacher)
    assert [(pair.student.width, pair.teacher.width) for pair in pairs] == [(16, 16), (32, 24), (8, 8)]
    assert [len(pair.convolution()) for pair in pairs] == [0, 1, 0]


@pytest.mark.parametrize('name', ['kd', 'dkd', 'dist'])
def test_rows_of_a_dense_head(name, data):
    terms = make_method(name).distill()
    if name == 'dist':
        terms['dist']['loss']['use_sigmoid'] = False  # mmrazor's has no other
    same_work(terms, wide(), wide(), data)


@pytest.mark.parametrize('network', [ssd, fcos, gfl, atss])
@pytest.mark.parametrize('name', ['kd', 'dkd'])
def test_rows_of_other_heads(name, network, data):
    terms = make_method(name).distill()
    if network is ssd:
        terms[name]['loss'].pop('use_sigmoid', None)
    same_work(terms, network(), network(), data)


@pytest.mark.parametrize('name', ['kd', 'dkd', 'dist'])
def test_rows_of_a_second_stage(name, data):
    """With one RPN in both networks and the same random numbers, the teacher's samples are the student's."""
    terms = make_method(f'{name}_two_stage').distill()
    same_work(terms, faster(), faster(), data, shared=('backbone', 'neck', 'rpn_head'))


def test_mmrazors_dist_takes_a_soft_max_where_ours_takes_a_sigmoid(data):
    terms = make_method('dist').distill()
    with pytest.raises(AssertionError, match='not close'):
        same_work(terms, wide(), wide(), data)


@pytest.mark.parametrize(
    'name, change, message',
    [
        ('fgd', {}, 'distill.fgd: it has no loss that does the work of FGDLoss; expected one of ABLoss, ATLoss'),
        ('rkd', {}, 'distill.rkd: its loss for RKDLoss takes one row per object, and it pools no boxes'),
        ('ctkd', {}, "distill.ctkd: it has nothing for T={'type': 'kd_det.CurriculumTemperature'"),
        ('logit_std', {}, 'distill.logit_std: it has nothing for standardize=True of KDLoss'),
        ('at', dict(loss=dict(type='kd_det.ATLoss', p=1)), 'it has nothing for p=1 of ATLoss'),
        ('kd', dict(adapter=dict(type='kd_det.DenseRows', select='all')), r"of adapter={.*'all'} for KDLoss; expected"),
        (
            'cwd',
            dict(adapter=dict(type='kd_det.Instances')),
            'adapter=.* for CWDLoss; expected Align',
        ),
        ('mgd', dict(adapter=dict(type='kd_det.Align', norm=True)), 'adapter=.* for MGDLoss; expected Align'),
        ('ofd', dict(adapter=dict(type='kd_det.Align')), 'OFDLoss without .*TeacherNorms.* measures its margins'),
        ('cwd', dict(student='bbox_head[0]'), r"a term reads 'bbox_head\[0\]'; expected levels of the neck"),
        ('cwd', dict(teacher='big:neck'), "a term reads 'big:neck'; expected levels of the neck"),
        ('cwd', dict(student='neck[0:4]'), 'distill.cwd: found 4 and 5 levels'),
        ('kd', dict(student='neck'), "a term reads 'neck'; expected bbox_head"),
        ('kd', dict(inputs=dict(labels='bbox_head.get_targets()')), 'distill.kd: found inputs=.*; expected none'),
        ('kd_two_stage', {}, 'the student has not one such head'),
    ],
)
def test_what_mmrazor_cannot_do_is_an_error(name, change, message):
    terms = make_method(name).distill()
    (term,) = terms.values()
    term.update(change)
    with pytest.raises(ConfigError, match=f'^mmrazor: .*{message}'):
        razor_detector(KINDS[1], wide(), wide(), terms)


def test_networks_that_do_not_fit_are_an_error():
    with pytest.raises(ConfigError, match='its FBKDLoss needs maps of one width, found 8 and 16'):
        razor_detector(KINDS[0], narrow(), wide(), make_method('fbkd').distill())
    other = faster()
    other['rpn_head']['anchor_generator']['ratios'] = [1.0]
    with pytest.raises(ConfigError, match='have other anchors; expected the same'):
        razor_detector(KINDS[1], faster(), other, make_method('kd_two_stage').distill())
    with pytest.raises(ConfigError, match='expected a neck with out_channels, found None'):
        razor_detector(KINDS[0], dict(wide(), neck=None), wide(), make_method('cwd').distill())


@pytest.mark.parametrize('name, network', [('dkd', wide), ('dkd_two_stage', faster)])
def test_the_kind_that_runs_no_head_is_left_out_with_the_reason(name, network, data):
    teacher = dict(config=network(), checkpoint=None)
    terms = make_method(name).distill()
    model = dict(type='kd_det.DistillDetector', student=network(), teacher=teacher, distill=terms)
    steps = Steps(Job(name, model), data, ['fp32'])
    steps.try_mmrazor()
    assert set(steps.failed) == {'mmrazor FpnTeacherDistill'}
    assert "FpnTeacherDistill runs the teacher's backbone and neck alone" in steps.failed['mmrazor FpnTeacherDistill']
    steps.calls['mmrazor SingleTeacherDistill']()  # once more: what was delivered is used up
