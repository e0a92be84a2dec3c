"""What losses allocate beside their inputs, forward and backward, the student's gradient included.

At the size of P3 of two images of 800x1344 with 256 channels: below twice the maps of student and teacher together.
The peak is that of PyTorch's own allocator, by its profiler, so that buffers inside an operator count too.
"""

import pytest
import torch
from reference_formulas import CASES
from reference_formulas.measure import fake, held, input_bytes
from torch.profiler import ProfilerActivity, profile

from kd_det.losses import (
    ATLoss,
    FBKDLoss,
    FitNetLoss,
    FSPLoss,
    ICKDLoss,
    NSTLoss,
    PKDLoss,
    ReviewKDLoss,
    RKDLoss,
    SPLoss,
    VIDLoss,
)

B, C, H, W = 2, 256, 100, 168


def tensors(value):
    return list(value) if isinstance(value, list) else [value]


def size(*values):
    """Bytes of tensors and of lists of them."""
    return sum(tensor.nbytes for value in values for tensor in tensors(value))


def peak(function):
    """The most bytes that were allocated at once while ``function`` ran, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]']
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def extra(loss, student, teacher):
    """The peak of one step over the size of its inputs."""
    for tensor in tensors(student):
        tensor.requires_grad_()
    run = lambda: torch.stack(list(_parts(loss(student, teacher)))).sum().backward()  # noqa: E731
    run()  # what is allocated once: gradients of the loss's own weights
    for tensor in tensors(student):
        tensor.grad = None
    return peak(run) / size(student, teacher)


def _parts(value):
    return value.values() if isinstance(value, dict) else [value]


def maps(*shape):
    return torch.randn(shape or (B, C, H, W))


def pyramid():
    return [maps(), maps(B, C, H // 2, W // 2)]


def instances():
    """Maps of 256 boxes: the rows that relations are for."""
    return maps(256, C, 7, 7)


def test_the_measure_sees_what_is_held_at_once():
    x = maps(1, 8, 32, 32)
    assert peak(lambda: (x + 1).sum()) == pytest.approx(size(x), rel=0.02)
    assert peak(lambda: [x + 1, x + 2, x + 3]) == pytest.approx(3 * size(x), rel=0.02)

    def one_after_the_other():
        for _ in range(3):
            (x + 1).sum()

    assert peak(one_after_the_other) == pytest.approx(size(x), rel=0.02)


def test_the_plain_way_would_fail():
    """One product per pair of channels and pixel: the way of the references, here with an eighth of the channels."""

    def nst(student, teacher):
        return ((student[:, :, None] * teacher[:, None]).sum((3, 4)) ** 2).mean()

    assert extra(nst, maps(B, C // 8, H // 4, W // 4), maps(B, C // 8, H // 4, W // 4)) > 8


@pytest.mark.parametrize(
    'loss, make',
    [
        (NSTLoss(), maps),
        (FSPLoss(), pyramid),
        (ICKDLoss(C, C), maps),
        (SPLoss(), maps),  # two rows of C x H x W
        (RKDLoss(), maps),  # as SP; too few rows, and so 0
        (SPLoss(), instances),
        (RKDLoss(), instances),
    ],
    ids=['NST', 'FSP', 'ICKD', 'SP', 'RKD', 'SP of instances', 'RKD of instances'],
)
def test_below_twice_the_inputs(loss, make):
    assert extra(loss, make(), make()) < 2


@pytest.mark.parametrize(
    'loss, make, says',
    [
        (NSTLoss(), maps, 1.0),
        (FSPLoss(), pyramid, 1.0),
        (ICKDLoss(C, C), maps, 1.0),
        (FitNetLoss(C, C), maps, 0.5),
        (ATLoss(), maps, 0.5),
        (PKDLoss(), maps, 0.5),
        (VIDLoss(C, C), maps, 1.5),
        (ReviewKDLoss([C, C], [C, C]), pyramid, 5.0),
        (FBKDLoss(C, C, reduction=4, maxpool_stride=8), maps, 5.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else None,
)
def test_what_docs_methods_says(loss, make, says):
    """The figures in M of the table, to a quarter."""
    assert extra(loss, make(), make()) == pytest.approx(says, abs=0.25)


#: Peak of a step over the input tensors, the student's gradient (0.5) included: maps of 2 x 256 x 50 x 84, 256 rows of
#: 256 numbers (80 classes; RKD: 64 rows).
FIGURES = {
    'fgd': 0.61,
    'mgd': 3.14,
    'mgd_channel': 3.14,
    'cwd': 0.59,
    'cwd_padded': 0.68,
    'pkd': 0.53,
    'nst': 1.03,
    'fsp': 1.00,
    'fitnet': 0.53,
    'fitnet_bn': 2.00,
    'at': 0.53,
    'at_cubes': 0.63,
    'vid': 2.06,
    'ickd': 1.04,
    'fbkd': 6.20,
    'reviewkd': 4.81,
    'ft': 3.25,
    'ft_attention': 3.00,
    'ab': 0.62,
    'ofd': 1.70,
    'ofd_measured': 1.70,
    'rkd': 14.1,
    'rkd_angle': 12.9,
    'sp': 3.50,
    'cc': 5.50,
    'cc_listing': 3.50,
    'cc_repdistiller': 1.25,
    'pkt': 5.01,
    'crd': 8.32,
    'kd': 2.50,
    'kd_sigmoid': 5.51,
    'kd_standardised': 4.01,
    'ctkd': 4.50,
    'dist': 3.56,
    'dkd': 6.01,
    'ofa': 2.51,
    'sdd': 2.51,
    'qfl': 4.50,
    'soft_targets': 2.51,
    'bounded_boxes': 2.16,
    'multibox': 3.84,
    'ld': 1.50,
    'crosskd': 2.75,
}


@pytest.mark.parametrize('name', FIGURES)
def test_peak_is_what_it_was(name):
    """The figure and a little; far below it, the figure has to be brought up to date."""
    call = CASES[name].make(size=(50, 84), channels=C, batch=B, instances=64 if 'rkd' in name else 256).ours
    found = step_peak(call)
    assert 0.75 * FIGURES[name] <= found <= 1.05 * FIGURES[name] + 0.03


def step_peak(call):
    """The peak of one step of a call over its inputs; the gradients of its weights are there already."""

    def run():
        call().backward()
        for leaf in call.leaves:
            leaf.grad = None

    run()
    return peak(run) / input_bytes(call)


def test_every_case_has_a_figure():
    assert set(FIGURES) == set(CASES)


@pytest.mark.parametrize(
    'name, sizes',
    [
        ('nst', dict(size=(H, W), channels=C)),
        ('fsp', dict(size=(H, W), channels=C)),
        ('ickd', dict(size=(H, W), channels=C)),
        ('rkd_angle', dict(instances=64, channels=C * 7 * 7)),  # RoI maps as rows
    ],
)
def test_a_fiftieth_of_the_plain_formula(name, sizes):
    """On tensors without numbers: the plain formula would take tens of gigabytes."""
    with fake(CASES[name].make(**sizes)) as pair:
        for call in pair:
            call.step()
        ours, plain = held(pair.ours.step), held(pair.plain.step)
    assert 0 < ours <= 0.02 * plain


@pytest.mark.parametrize('name', ['nst', 'pkd', 'sp'])
def test_both_measures_agree(name):
    """What is counted on tensors without numbers is what the allocator sees, but for buffers within operations."""
    pair = CASES[name].make(size=(24, 32), channels=32, instances=48)
    seen = peak(pair.plain.step)
    with fake(pair) as shapes:
        assert held(shapes.plain.step) == pytest.approx(seen, rel=0.1)
