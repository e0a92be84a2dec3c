"""What losses allocate beside their inputs, forward and backward, the student's gradient included.

At the size of P3 of two images of 800x1344 with 256 channels: below twice the maps of student and teacher together.
The peak is that of PyTorch's own allocator, by its profiler, so that buffers inside an operator count too.
"""

import pytest
import torch
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
        (FitNetLoss(C, C), maps, 1.0),
        (ATLoss(), maps, 1.5),
        (PKDLoss(), maps, 3.0),
        (VIDLoss(C, C), maps, 3.5),
        (ReviewKDLoss([C, C], [C, C]), pyramid, 5.0),
        (FBKDLoss(C, C, reduction=4, maxpool_stride=8), maps, 5.0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else None,
)
def test_what_docs_methods_says(loss, make, says):
    """The figures in M of the table, to a quarter."""
    assert extra(loss, make(), make()) == pytest.approx(says, abs=0.25)
