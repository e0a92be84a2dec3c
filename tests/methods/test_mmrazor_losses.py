"""Any loss that mmrazor registers, as a term: on maps, on rows of RoI scores, or refused with the reason."""

import pytest
import torch
from steps import run_method
from tiny_models import batch, build, distiller, faster, gfl, retina

from kd_det.compat import import_mmrazor
from kd_det.errors import ConfigError

import_mmrazor()
from mmrazor.models import losses as mmrazor_losses  # noqa: E402

#: On levels of the neck.
MAPS = {
    'ABLoss': {}, 'ATLoss': {}, 'ChannelWiseDivergence': dict(tau=2.0), 'FTLoss': {}, 'KLDivergence': {}, 'L1Loss': {},
    'L2Loss': dict(normalize=False, div_element=True), 'MGDLoss': dict(alpha_mgd=0.01), 'OFDLoss': {}, 'PKDLoss': {},
}  # fmt: skip
#: On rows of RoI scores.
ROWS = {
    'AngleWiseRKD': {}, 'CrossEntropyLoss': {}, 'DISTLoss': {}, 'DistanceWiseRKD': {}, 'KDSoftCELoss': dict(tau=2.0),
    'KLDivergence': dict(tau=2.0),
}  # fmt: skip
#: On such rows, with the labels of the sampled RoIs.
LABELLED = {'DKDLoss': {}, 'WSLD': dict(num_classes=4)}
#: Losses of one network's output, for generators of images.
ONE_SIDED = ('ActivationLoss', 'InformationEntropyLoss', 'OnehotLikeLoss')
#: What needs more than a term of a detector has: see the test that names it.
OTHERS = ('CRDLoss',)
#: What a connector gives, on either side.
CONNECTED = {
    'FBKDLoss': (dict(type='mmrazor.FBKDStudentConnector'), dict(type='mmrazor.FBKDTeacherConnector')),
    'MGDLoss': (dict(type='mmrazor.MGDConnector'), None),
    'FTLoss': (
        dict(type='mmrazor.Translator', out_channel=8), dict(type='mmrazor.Paraphraser', out_channel=8, phase='train')
    ),
}  # fmt: skip

WIDE = dict(base=16, channels=24)
LABELS = dict(gt_labels='roi_head.bbox_head.get_targets()[0]')
SCORES = 'roi_head.bbox_head[0]'


def neck(name, options):
    return dict(razor=dict(student='neck', teacher='neck', loss=dict(type=f'mmrazor.{name}', **options)))


def rows(name, options, **term):
    loss = dict(type=f'mmrazor.{name}', **options)
    return dict(razor=dict(student=SCORES, teacher=SCORES, adapter=dict(type='kd_det.RoIRows'), loss=loss, **term))


def test_all_of_mmrazors_losses_are_here():
    assert {*MAPS, *ROWS, *LABELLED, *ONE_SIDED, *OTHERS, *CONNECTED} == set(mmrazor_losses.__all__)


@pytest.mark.parametrize('name', MAPS)
@pytest.mark.parametrize('family', [retina, gfl])
def test_on_maps(name, family):
    run_method(neck(name, MAPS[name]), family(), family(**WIDE))


@pytest.mark.parametrize('name', CONNECTED)
def test_behind_connectors(name):
    student, teacher = CONNECTED[name]
    adapter = dict(type='kd_det.Connectors', student=student, teacher=teacher)
    term = dict(student='neck', teacher='neck', adapter=adapter, loss=dict(type=f'mmrazor.{name}'))
    run_method(dict(razor=term), retina(), retina())


@pytest.fixture(scope='module')
def sure(tmp_path_factory):
    """A teacher whose scores say something: those of random weights are nearly equal for all classes."""
    net = build(faster(**WIDE), 3)
    net.roi_head.bbox_head.fc_cls.weight.data *= 30
    path = tmp_path_factory.mktemp('teacher') / 'sure.pth'
    torch.save(dict(state_dict=net.state_dict()), path)
    return str(path)


@pytest.mark.parametrize('name', ROWS)
def test_on_rows(name, sure):
    run_method(rows(name, ROWS[name]), faster(), faster(**WIDE), checkpoint=sure)


@pytest.mark.parametrize('name', LABELLED)
def test_on_rows_with_labels(name, sure):
    run_method(rows(name, LABELLED[name], inputs=LABELS), faster(), faster(**WIDE), checkpoint=sure)


@pytest.mark.parametrize('name', LABELLED)
def test_labels_are_those_of_the_sampled_rois(name, sure, monkeypatch):
    """One label per row; a detector's own ``gt_labels``, a list per image, are another thing."""
    seen, kind = [], getattr(mmrazor_losses, name)
    forward = kind.forward

    def spy(self, student, teacher, gt_labels):
        seen.append((student, gt_labels))
        return forward(self, student, teacher, gt_labels)

    model = distiller(faster(), faster(**WIDE), rows(name, LABELLED[name], inputs=LABELS), checkpoint=sure)
    monkeypatch.setattr(kind, 'forward', spy)
    images, samples = batch(model)
    model.loss(images, samples)
    ((scores, labels),) = seen
    assert labels.shape == scores.shape[:1] and scores.shape[1] == 4 and int(labels.max()) == 3  # background is last
    kept = {int(label) for sample in samples for label in sample.gt_instances.labels}
    assert {int(label) for label in labels} - {3} <= kept and (labels < 3).any()


@pytest.mark.parametrize('name', ['ATLoss', 'L2Loss', 'PKDLoss'])
def test_a_term_gives_what_the_loss_gives(name):
    """Level by level, on the maps of both necks."""
    model = distiller(retina(), retina(), neck(name, {}))
    images, samples = batch(model)
    with torch.no_grad():
        ours, theirs = model.student.extract_feat(images), model.teacher.model.extract_feat(images)
        expected = sum(getattr(mmrazor_losses, name)()(s, t) for s, t in zip(ours, theirs))
    torch.testing.assert_close(model.loss(images, samples)['loss_razor'], expected)


@pytest.mark.parametrize('name', ONE_SIDED)
def test_losses_of_one_network_are_refused(name):
    with pytest.raises(ConfigError, match=f"distill.razor.loss: 'mmrazor.{name}' takes one reading"):
        distiller(retina(), retina(), neck(name, {}))


def test_crd_wants_the_index_of_each_image():
    """And one vector for each: nothing that a detector has. kd_det has its own, on instances."""
    with pytest.raises(AssertionError, match='sample_idx'):
        model = distiller(faster(), faster(**WIDE), rows('CRDLoss', dict(neg_num=2, sample_n=9, dim_out=4)))
        model.loss(*batch(model))


def test_a_wrong_name_finds_the_nearest():
    with pytest.raises(ConfigError, match="'mmrazor.ChannelWiseDivergance' is not registered.*ChannelWiseDivergence"):
        distiller(retina(), retina(), neck('ChannelWiseDivergance', {}))
