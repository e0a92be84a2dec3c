"""One loss beside its plain formula: how to build both, and inputs of any size for them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kd_det.registry import MODELS


@dataclass
class Sizes:
    """What inputs are made of.

    ``size`` (H, W) of the map, or of the largest level; ``channels`` of the teacher, and width of rows; ``batch``
    images; ``boxes`` per image; ``instances``: rows, for losses on rows; ``classes`` of logits.
    """

    size: tuple[int, int]
    channels: int
    student_channels: int
    batch: int
    boxes: int
    instances: int
    classes: int
    generator: torch.Generator

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def integers(self, end: int, *shape: int) -> Tensor:
        return torch.randint(end, shape, generator=self.generator)

    def widths(self, levels: int | None = None) -> dict[str, Any]:
        """The options ``student_channels`` and ``teacher_channels`` of a loss, one each, or a list of levels."""
        found = dict(student_channels=self.student_channels, teacher_channels=self.channels)
        return found if levels is None else {key: [value] * levels for key, value in found.items()}


class Inputs(NamedTuple):
    """Student and teacher (a tensor, a list or a dict each), what else is asked for, and options of the loss."""

    student: Any
    teacher: Any
    asked: dict[str, Any] = {}
    options: dict[str, Any] = {}


class Call:
    """One of the two ways to compute a loss, on tensors of its own.

    Calling it gives the scalar, on a graph that reaches ``leaves`` (the student's tensors) and ``parameters`` (those of
    the loss that learn).
    """

    def __init__(self, function: Callable, module: nn.Module, student: Any, teacher: Any, asked: dict) -> None:
        self.function, self.module = function, module
        self.student, self.teacher, self.asked = student, teacher, asked
        self.leaves = tensors(student)
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        for leaf in self.leaves:
            leaf.requires_grad_()

    def __call__(self) -> Tensor:
        value = self.function(self.student, self.teacher, **self.asked)
        return sum(value.values()) if isinstance(value, dict) else value

    def step(self) -> None:
        """Forward, backward, and let the gradients go."""
        self().backward()
        for leaf in (*self.leaves, *self.parameters.values()):
            leaf.grad = None


class Pair(NamedTuple):
    """Our loss and the plain formula, on equal tensors and with equal weights."""

    ours: Call
    plain: Call


@dataclass
class Case:
    """A loss, how inputs are made for it, and its formula.

    Args:
        type: The loss, such as ``'kd_det.NSTLoss'``.
        inputs: From :class:`Sizes` to :class:`Inputs`.
        formula: ``formula(student, teacher, **constants, **asked)``, and ``module=`` for losses that learn something.
        constants: Options of the loss, given to the formula, too.
        scales: Which of 'size', 'batch', 'boxes' and 'instances' change the work.
        maps: Whether the inputs are feature maps.
        learns: Whether the formula takes the loss's own weights.
    """

    type: str
    inputs: Callable[[Sizes], Inputs]
    formula: Callable[..., Tensor]
    constants: dict[str, Any] = field(default_factory=dict)
    scales: Sequence[str] = ('size', 'batch')
    maps: bool = True
    learns: bool = False

    def make(
        self,
        size: tuple[int, int] = (100, 168),
        channels: int = 256,
        batch: int = 2,
        boxes: int = 5,
        instances: int = 128,
        generator: torch.Generator | None = None,
        student_channels: int | None = None,
        classes: int = 80,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = 'cpu',
    ) -> Pair:
        """Both ways on equal tensors, drawn from ``generator`` (None: always the same).

        Args:
            size: (H, W) of the map, or of the largest level.
            channels: Channels of the teacher's map; width of rows.
            batch: Images.
            boxes: Ground-truth boxes per image.
            instances: Rows of losses that compare rows.
            generator: Source of all numbers, on the CPU.
            student_channels: Channels of the student's map, where the loss takes others; None: as the teacher's.
            classes: Classes of logits.
            dtype: Of inputs and weights.
            device: Where they are.
        """
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        narrow = channels if student_channels is None else student_channels
        sizes = Sizes(tuple(size), channels, narrow, batch, boxes, instances, classes, generator)
        student, teacher, asked, options = self.inputs(sizes)
        constants = {key: value(sizes) if callable(value) else value for key, value in self.constants.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(sizes.integers(2**31, 1).item())
            loss = MODELS.build(dict(type=self.type, **constants, **options)).to(device, dtype).train()
        for parameter in loss.parameters():  # some start at zero, and would hide what stands behind them
            noise = 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data += noise.to(parameter)
        other = copy.deepcopy(loss)
        extra = dict(constants, module=other) if self.learns else constants

        def plain(*tensors: Any, **asked: Any) -> Tensor:
            return self.formula(*tensors, **extra, **asked)

        moved = [each(lambda x: place(x, device, dtype), value) for value in (student, teacher, asked)]
        fresh = [each(torch.clone, value) for value in moved]
        return Pair(Call(loss, loss, *moved), Call(plain, other, *fresh))


def place(tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """On the device; numbers that are no whole numbers in ``dtype``."""
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)


def each(function: Callable, value: Any) -> Any:
    """Apply ``function`` to every tensor in lists, tuples and dicts; leave the rest."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: each(function, item) for key, item in value.items()}
    return type(value)(each(function, item) for item in value) if isinstance(value, (list, tuple)) else value


def tensors(value: Any) -> list[Tensor]:
    """All tensors of a reading."""
    if isinstance(value, Tensor):
        return [value]
    return list(value.values()) if isinstance(value, dict) else list(value)


# ------------------------------------------------------------------------------------------------------- inputs


def equal_maps(sizes: Sizes) -> Inputs:
    """Two maps (B, C, H, W)."""
    shape = (sizes.batch, sizes.channels, *sizes.size)
    return Inputs(sizes.normal(*shape), sizes.normal(*shape))


def learnt_maps(sizes: Sizes) -> Inputs:
    """Two maps, for a loss that knows the channels of both."""
    student = sizes.normal(sizes.batch, sizes.student_channels, *sizes.size)
    return Inputs(student, sizes.normal(sizes.batch, sizes.channels, *sizes.size), {}, sizes.widths())


def free_maps(sizes: Sizes) -> Inputs:
    """Two maps whose channels may differ."""
    return learnt_maps(sizes)._replace(options={})


def padded_maps(sizes: Sizes) -> Inputs:
    """Two maps of a batch in which every second image has padding."""
    full = (8 * sizes.size[0], 8 * sizes.size[1])
    real = [(full[0] - 8 * (full[0] // 32), full[1]) if i % 2 else full for i in range(sizes.batch)]
    return equal_maps(sizes)._replace(asked=dict(image_sizes=real, batch_input_shape=full))


def masked_maps(sizes: Sizes) -> Inputs:
    """Two maps and a draw for each position."""
    return learnt_maps(sizes)._replace(asked=dict(uniform=sizes.uniform(sizes.batch, 1, *sizes.size)))


def masked_channels(sizes: Sizes) -> Inputs:
    """Two maps and a draw for each channel."""
    return learnt_maps(sizes)._replace(asked=dict(uniform=sizes.uniform(sizes.batch, sizes.channels, 1, 1)))


def boxed_maps(sizes: Sizes) -> Inputs:
    """Two maps of stride 8 and boxes of all sizes within the images."""
    full = torch.tensor((8.0 * sizes.size[1], 8.0 * sizes.size[0]), dtype=torch.float64)
    found = []
    for _ in range(sizes.batch):
        corner = sizes.uniform(sizes.boxes, 2) * 0.9
        extent = (1 - corner) * sizes.uniform(sizes.boxes, 2) ** 2
        found.append(torch.cat((corner, corner + extent), 1) * full.repeat(2))
    asked = dict(gt_bboxes=found, batch_input_shape=(8 * sizes.size[0], 8 * sizes.size[1]))
    return learnt_maps(sizes)._replace(asked=asked)


def pyramid(sizes: Sizes, widths: bool = False, same: bool = False) -> Inputs:
    """Two levels, the second half as high and wide."""
    (height, width), both = sizes.size, []
    narrow = sizes.channels if same else sizes.student_channels
    for channels in (narrow, sizes.channels):
        shapes = [(height, width), (-(-height // 2), -(-width // 2))]
        both.append([sizes.normal(sizes.batch, channels, *shape) for shape in shapes])
    return Inputs(*both, {}, sizes.widths(2) if widths else {})


def learnt_pyramid(sizes: Sizes) -> Inputs:
    """Two levels, for a loss that knows their channels."""
    return pyramid(sizes, widths=True)


def equal_pyramid(sizes: Sizes) -> Inputs:
    """Two levels of as many channels on both sides."""
    return pyramid(sizes, same=True)


def rows(sizes: Sizes) -> Inputs:
    """Embeddings of instances (N, C), the teacher's related to the student's."""
    student = sizes.normal(sizes.instances, sizes.student_channels)
    mixed = student @ sizes.normal(sizes.student_channels, sizes.channels) / sizes.student_channels**0.5
    return Inputs(student, mixed + sizes.normal(sizes.instances, sizes.channels))


def logits(sizes: Sizes) -> Inputs:
    """Class logits (N, K) that agree more or less."""
    student = 2 * sizes.normal(sizes.instances, sizes.classes)
    return Inputs(student, student + sizes.normal(sizes.instances, sizes.classes))


def labelled_logits(sizes: Sizes) -> Inputs:
    """Class logits and a label for each row."""
    return logits(sizes)._replace(asked=dict(labels=sizes.integers(sizes.classes, sizes.instances)))


def regions(sizes: Sizes) -> Inputs:
    """Class logits of 21 regions of an instance, and its label."""
    student = 2 * sizes.normal(sizes.instances, sizes.classes, 21)
    teacher = student + sizes.normal(*student.shape)
    return Inputs(student, teacher, dict(labels=sizes.integers(sizes.classes, sizes.instances)))


def learnt_rows(sizes: Sizes) -> Inputs:
    """Embeddings of instances, for a loss that knows both widths."""
    return rows(sizes)._replace(options=sizes.widths())


def remembered_rows(sizes: Sizes) -> Inputs:
    """Embeddings of instances that have places in memories of 4 times as many, and 8 other places for each."""
    number = 4 * sizes.instances
    own = torch.randperm(number, generator=sizes.generator)[: sizes.instances]
    others = (own[:, None] + 1 + sizes.integers(number - 1, sizes.instances, 8)) % number
    asked = dict(idx=own, contrast_idx=torch.cat((own[:, None], others), 1))
    return learnt_rows(sizes)._replace(asked=asked)


def norms_and_pyramid(sizes: Sizes) -> Inputs:
    """Two levels, and the batch norm of the teacher before each."""
    weights = [0.5 + sizes.uniform(sizes.channels) for _ in range(2)]
    biases = [sizes.normal(sizes.channels) for _ in range(2)]
    return learnt_pyramid(sizes)._replace(asked=dict(bn_weight=weights, bn_bias=biases))


def box_distributions(sizes: Sizes) -> Inputs:
    """Maps of distributions over 17 bins for 4 sides, class logits, and some anchors of either kind."""
    anchors = sizes.batch * sizes.size[0] * sizes.size[1]
    chosen = torch.randperm(anchors, generator=sizes.generator)[: min(anchors, 2 * sizes.instances)]
    positive, region = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]
    scores = [sizes.normal(sizes.batch, sizes.classes, *sizes.size) for _ in range(2)]
    asked = dict(pos_inds=positive, vlr_inds=region, vlr_value=sizes.uniform(len(region)))
    asked.update(cls_student=scores[0], cls_teacher=scores[1])
    maps = [sizes.normal(sizes.batch, 68, *sizes.size) for _ in range(2)]
    return Inputs(*maps, asked)


def head_rows(sizes: Sizes) -> Inputs:
    """What two dense heads predict for as many rows, and the student's targets."""
    number, both = sizes.instances, []
    for _ in range(2):
        corner, extent = sizes.uniform(number, 2), 0.1 + sizes.uniform(number, 2)
        boxes = torch.cat((corner, corner + extent), 1)
        dist = sizes.normal(4 * number, 17)
        both.append(
            dict(cls=sizes.normal(number, sizes.classes), boxes=boxes, dist=dist, centerness=sizes.normal(number))
        )
    weights = sizes.uniform(number) * (sizes.uniform(number) > 0.2)
    labels = sizes.integers(sizes.classes + 1, number)
    return Inputs(*both, dict(labels=labels, label_weights=weights, scores=sizes.uniform(number)))


def offsets(sizes: Sizes) -> Inputs:
    """Box offsets, their targets, and which rows are positive."""
    values = [sizes.normal(sizes.instances, 4) for _ in range(3)]
    positive = (sizes.uniform(sizes.instances, 1) > 0.3).double().expand(-1, 4)
    return Inputs(values[0], values[1], dict(bbox_targets=values[2], bbox_weights=positive))


def priors(sizes: Sizes) -> Inputs:
    """What two SSD heads predict for as many priors of each image, one in ten of them positive; the last has none."""
    number = sizes.instances
    both = [
        dict(loc=sizes.normal(sizes.batch, number, 4), conf=sizes.normal(sizes.batch, number, sizes.classes + 1))
        for _ in range(2)
    ]
    labels = sizes.integers(sizes.classes, sizes.batch, number)
    background = sizes.uniform(sizes.batch, number) > 0.1
    background[:, 0], background[-1] = False, True
    labels = labels.masked_fill(background, sizes.classes)
    return Inputs(*both, dict(loc_t=sizes.normal(sizes.batch, number, 4), conf_t=labels))
