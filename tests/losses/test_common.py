"""What holds for every loss."""

import inspect

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from kd_det import losses
from kd_det.registry import MODELS


def maps(channels=(3, 4)):
    return torch.randn(2, channels[0], 6, 8), torch.randn(2, channels[1], 6, 8)


def make(name):
    """A loss, its two inputs and what else it asks for."""
    torch.manual_seed(0)
    sizes = dict(image_sizes=[(96, 128), (80, 100)], batch_input_shape=(96, 128))
    if name == 'FGDLoss':
        boxes = [torch.rand(30, 4) * 40 + torch.tensor([0.0, 0, 40, 40]), torch.zeros(0, 4)]
        return losses.FGDLoss(3, 4), *maps(), dict(sizes, gt_bboxes=boxes)
    if name == 'FGDLoss paper':
        boxes = [torch.rand(3, 4) * 40 + torch.tensor([0.0, 0, 40, 40]), torch.zeros(0, 4)]
        return losses.FGDLoss(3, 4, paper_masks=True), *maps(), dict(sizes, gt_bboxes=boxes)
    if name == 'MGDLoss':
        return losses.MGDLoss(3, 4), *maps(), dict(uniform=torch.rand(2, 1, 6, 8))
    if name == 'CWDLoss':
        return losses.CWDLoss(tau=2.0), *maps((4, 4)), sizes
    if name.startswith('SoftTargetLoss'):
        labels = dict(labels=torch.randint(-1, 5, (20,)), label_weights=torch.ones(20))
        return losses.SoftTargetLoss(2.0, 'sigmoid' in name), torch.randn(20, 5), torch.randn(20, 5), labels
    if name == 'TeacherBoundedL2Loss':
        targets = dict(bbox_targets=torch.randn(20, 4), bbox_weights=(torch.rand(20, 4) > 0.5).float())
        return losses.TeacherBoundedL2Loss(), torch.randn(20, 4), torch.randn(20, 4), targets
    if name.split()[0] in LOGITS or name == 'SDDLoss':
        rows = [torch.randn(20, 5, *([21] if name == 'SDDLoss' else [])) for _ in range(2)]
        options = dict(standardize=True) if 'standardized' in name else {}
        if 'learnt' in name:
            options = dict(T=dict(type='kd_det.CurriculumTemperature'))
        loss = getattr(losses, name.split()[0])(**options)
        known = inspect.signature(loss.forward).parameters
        labels = dict(labels=torch.randint(-1, 6, (20,)), label_weights=torch.ones(20))
        return loss, *rows, {key: value for key, value in labels.items() if key in known}
    if name == 'CRDLoss':
        loss = losses.CRDLoss(6, 7, n_data=20, feat_dim=4).eval()  # in training mode it remembers
        idx = torch.randint(-1, 20, (12,))
        asked = dict(idx=idx, contrast_idx=torch.cat((idx[:, None], torch.randint(20, (12, 5))), 1))
        return loss, torch.randn(12, 6), torch.randn(12, 7), asked
    if name.split()[0] in RELATIONS:
        embedded = dict(variant='repdistiller', student_channels=6, teacher_channels=7) if 'embedded' in name else {}
        return getattr(losses, name.split()[0])(**embedded), torch.randn(12, 6), torch.randn(12, 7), {}
    if name in MAPS:
        narrow = name in ('PKDLoss', 'FSPLoss')
        pairs = [maps((4, 4) if narrow else (3, 4)) for _ in range(2)]
        student, teacher = ([*x] for x in zip(*pairs)) if name in PYRAMIDS else pairs[0]
        loss_class, options = getattr(losses, name), {}
        if 'student_channels' in inspect.signature(loss_class.__init__).parameters:
            channels = ([3, 3], [4, 4]) if name in PYRAMIDS else (3, 4)
            options.update(student_channels=channels[0], teacher_channels=channels[1])
        return loss_class(**options), student, teacher, {}
    if name == 'LDLoss':
        rows = dict(pos_inds=torch.tensor([0, 50]), vlr_inds=torch.tensor([3, 90]), vlr_value=torch.rand(2))
        rows.update(cls_student=torch.randn(2, 5, 6, 8), cls_teacher=torch.randn(2, 5, 6, 8))
        return losses.LDLoss(), *maps((68, 68)), rows
    if name == 'CrossKDLoss':
        rows = [dict(cls=torch.randn(20, 5), dist=torch.randn(80, 9), centerness=torch.randn(20)) for _ in range(2)]
        rows = [dict(row, boxes=torch.rand(20, 2).repeat(1, 2) + torch.tensor([0, 0, 1, 1.0])) for row in rows]
        weights = dict(labels=torch.randint(-1, 6, (20,)), label_weights=torch.ones(20), scores=torch.rand(20))
        dist = dict(type='kd_det.KDLoss', T=1.0)
        return losses.CrossKDLoss(loss_dist=dist, centerness_weight=1.0, normalize='scores'), *rows, weights
    if name == 'MultiBoxKDLoss':
        heads = [dict(loc=torch.randn(2, 20, 4), conf=torch.randn(2, 20, 5)) for _ in range(2)]
        targets = dict(loc_t=torch.randn(2, 20, 4), conf_t=torch.randint(0, 5, (2, 20)))
        return losses.MultiBoxKDLoss(negatives_for_hard=5), *heads, targets
    loss = getattr(losses, name)(**channels_of(getattr(losses, name)))
    boxes = [torch.rand(3, 4) * 40 + torch.tensor([0.0, 0, 40, 40]), torch.zeros(0, 4)]
    known = inspect.signature(loss.forward).parameters
    return loss, *maps((4, 4)), {k: v for k, v in dict(sizes, gt_bboxes=boxes).items() if k in known}


def channels_of(loss_class, width=4):
    needs = inspect.signature(loss_class.__init__).parameters
    return {key: width for key in ('student_channels', 'teacher_channels') if key in needs}


LOGITS = ['KDLoss', 'DISTLoss', 'DKDLoss', 'OFALoss', 'QFLKDLoss']
RELATIONS = ['SPLoss', 'CCLoss', 'RKDLoss', 'PKTLoss', 'CRDLoss']
PYRAMIDS = ['ABLoss', 'FSPLoss', 'OFDLoss', 'ReviewKDLoss']
MAPS = ['ATLoss', 'FBKDLoss', 'FitNetLoss', 'FTLoss', 'ICKDLoss', 'NSTLoss', 'PKDLoss', 'VIDLoss', *PYRAMIDS]
NAMES = ['FGDLoss', 'FGDLoss paper', 'MGDLoss', 'CWDLoss', 'SoftTargetLoss', 'SoftTargetLoss sigmoid']
NAMES += ['TeacherBoundedL2Loss', 'MultiBoxKDLoss']
NAMES += [*LOGITS, 'KDLoss learnt', 'DKDLoss standardized', 'SDDLoss', *RELATIONS, 'CCLoss embedded']
NAMES += [*MAPS, 'LDLoss', 'CrossKDLoss']
#: A loss without an entry above takes two maps of equal width, and perhaps boxes and sizes.
NAMES += sorted(set(losses.__all__) - {name.split()[0] for name in NAMES})


def each(function, value):
    if isinstance(value, list):
        return [function(v) for v in value]
    return {k: function(v) for k, v in value.items()} if isinstance(value, dict) else function(value)


def total(value):
    return sum(value.values()) if isinstance(value, dict) else value


def leaves(value):
    if isinstance(value, list):
        return value
    return list(value.values()) if isinstance(value, dict) else [value]


@pytest.mark.parametrize('name', sorted(losses.__all__))
def test_registered(name):
    channels = channels_of(getattr(losses, name), [4] if name in PYRAMIDS else 4)
    channels.update(dict(n_data=5) if name == 'CRDLoss' else {})
    assert type(MODELS.build(dict(type=f'kd_det.{name}', **channels))) is getattr(losses, name)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_narrow_inputs_are_upcast_at_the_door(name, dtype):
    loss, student, teacher, asked = make(name)
    student, teacher = each(lambda x: x.to(dtype).requires_grad_(), student), each(lambda x: x.to(dtype), teacher)
    wide = each(lambda x: x.detach().float().requires_grad_(), student)
    with torch.autocast('cpu', torch.bfloat16):
        found = total(loss(student, teacher, **asked))
    # The backward pass of a matrix product follows the autocast around it; in training there is none.
    with torch.autocast('cpu', torch.bfloat16, enabled=name.split()[0] not in RELATIONS + MAPS):
        gradients = torch.autograd.grad(found, leaves(student))
    expected = total(loss(wide, each(torch.Tensor.float, teacher), **asked))
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    for one, other in zip(gradients, torch.autograd.grad(expected, leaves(wide))):
        assert one.dtype == dtype and torch.equal(one, other.to(dtype))


@pytest.mark.parametrize('name', NAMES)
def test_double_stays_double(name):
    loss, student, teacher, asked = make(name)
    expected = total(loss(student, teacher, **asked))
    asked = {k: v.double() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in asked.items()}
    found = total(loss.double()(each(torch.Tensor.double, student), each(torch.Tensor.double, teacher), **asked))
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize('name', NAMES)
def test_teacher_gets_no_gradient_and_every_parameter_does(name):
    loss, student, teacher, asked = make(name)
    for x in leaves(student) + leaves(teacher):
        x.requires_grad_()
    total(loss(student, teacher, **asked)).backward()
    assert all(x.grad is None for x in leaves(teacher))
    assert all(x.grad is not None and x.grad.any() for x in leaves(student))
    assert all(
        p.grad is not None for p in loss.parameters() if p.requires_grad
    )  # needed under DDP without find_unused_parameters


@pytest.mark.parametrize('name', NAMES)
def test_reads_nothing_back_from_the_device(name):
    """Tensors without values stand in for a device: any read, such as ``item`` or a boolean index, fails."""
    loss, student, teacher, asked = make(name)
    mode = FakeTensorMode()
    loss.load_state_dict({k: mode.from_tensor(v) for k, v in loss.state_dict().items()}, assign=True)
    with mode:
        fake = lambda x: mode.from_tensor(x) if isinstance(x, torch.Tensor) else x  # noqa: E731
        student = each(lambda x: fake(x).requires_grad_(), student)
        asked = {k: [fake(x) for x in v] if isinstance(v, list) else fake(v) for k, v in asked.items()}
        value = total(loss(student, each(fake, teacher), **asked))
        value.backward()
        with pytest.raises(DataDependentOutputException):
            value.item()
    assert value.shape == ()


@pytest.mark.parametrize('name', NAMES)
def test_signature_is_visible(name):
    """A term finds out by name what a loss asks for."""
    loss, _, _, asked = make(name)
    parameters = list(inspect.signature(loss.forward).parameters)
    assert parameters[:2] == ['student', 'teacher'] and set(asked) <= set(parameters)
