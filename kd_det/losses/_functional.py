"""Mathematics that several losses share.

Nothing here knows a detector: tensors go in, tensors come out. No function reads a value back from the device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Boxes whose presence one float32 number can record exactly (bits of its mantissa).
_BOXES_PER_NUMBER = 24


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply ``function`` to every tensor in ``value``, which may nest lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [map_tensors(function, item) for item in value]
        return type(value)(*items) if hasattr(value, '_fields') else type(value)(items)
    return value


def upcast(value: Any) -> Any:
    """Turn every floating tensor narrower than 32 bits into float32; leave all others as they are."""

    def one(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor

    return map_tensors(one, value)


def device_type(value: Any) -> str:
    """The type of the device of the first tensor in ``value``; empty if there is none."""
    if isinstance(value, Tensor):
        return value.device.type
    if isinstance(value, dict):
        value = list(value.values())
    for item in value if isinstance(value, (list, tuple)) else ():
        found = device_type(item)
        if found:
            return found
    return ''


def full_precision(forward: Callable) -> Callable:
    """Decorate ``forward(self, student, teacher, ...)`` of a loss, so that it runs in float32 at least.

    Autocast is off inside. Tensors of 16 bits and fewer are upcast, also inside lists and dicts; float32 and float64
    stay. ``teacher`` is detached. The signature stays visible to :func:`inspect.signature`.
    """

    @functools.wraps(forward)
    def wrapper(self, student, teacher, *args, **kwargs):
        with torch.autocast(device_type(student) or 'cpu', enabled=False):
            teacher = map_tensors(Tensor.detach, teacher)
            student, teacher, args, kwargs = upcast((student, teacher, args, kwargs))
            return forward(self, student, teacher, *args, **kwargs)

    return wrapper


def shape_of(value: Any) -> str:
    """The shape of a tensor as text, for error messages."""
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def check_maps(
    name: str,
    student: Tensor,
    teacher: Tensor,
    student_channels: int | None = None,
    teacher_channels: int | None = None,
) -> None:
    """Check that two feature maps belong together.

    Args:
        name: The loss, for the message.
        student: Shape (B, C_s, H, W).
        teacher: Shape (B, C_t, H, W).
        student_channels: The C_s that is expected; None: C_s = C_t.
        teacher_channels: The C_t that is expected; None: anything.

    Raises:
        ValueError: If the shapes differ in B, H or W, or have the wrong number of channels.
    """
    shapes = f'student {shape_of(student)}, teacher {shape_of(teacher)}'
    if not isinstance(student, Tensor) or not isinstance(teacher, Tensor) or student.dim() != 4 or teacher.dim() != 4:
        raise ValueError(f'{name}: two maps of shape (B, C, H, W) are expected, found {shapes}.')
    if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
        raise ValueError(f'{name}: student and teacher must agree in B, H and W, found {shapes}.')
    if student_channels is None and student.shape[1] != teacher.shape[1]:
        raise ValueError(f'{name}: student and teacher must have the same number of channels, found {shapes}.')
    for role, tensor, channels in (('student', student, student_channels), ('teacher', teacher, teacher_channels)):
        if channels is not None and tensor.shape[1] != channels:
            raise ValueError(f'{name}: the {role} must have {channels} channels ({role}_channels), found {shapes}.')


# --------------------------------------------------------------------------------------------------------- logits


def softmax_kl(
    student: Tensor, teacher: Tensor, T: float = 1.0, weight: Tensor | None = None, form: str = 'kl', eps: float = 0.0
) -> Tensor:
    """Kullback-Leibler divergence of two soft-max distributions, teacher first, over the last axis.

    ``sum_c w_c p_t (log(p_t + eps) - log(p_s + eps))`` with ``p = softmax(z / T)``; no factor T².

    Args:
        student: Logits, shape (..., K).
        teacher: Logits, shape (..., K).
        T: Temperature.
        weight: Weight of each class, shape (K,); None: all 1.
        form: 'kl', or 'ce' for the cross entropy ``-sum_c w_c p_t log p_s``.
        eps: Added to both probabilities, as some published code does; 0 works with log-soft-max, always finite.

    Returns:
        Shape (...).
    """
    p_t = F.softmax(teacher / T, dim=-1)
    if eps:
        p_t = p_t + eps
        log_s = torch.log(F.softmax(student / T, dim=-1) + eps)
        log_t = torch.log(p_t)
    else:
        log_s = F.log_softmax(student / T, dim=-1)
        log_t = F.log_softmax(teacher / T, dim=-1)
    terms = p_t * (log_t - log_s) if form == 'kl' else -p_t * log_s
    return (terms if weight is None else terms * weight).sum(-1)


def binary_kl(student: Tensor, teacher: Tensor, T: float = 1.0, form: str = 'kl') -> Tensor:
    """Divergence of two Bernoulli distributions per element, teacher first: ``p = sigmoid(z / T)``; no factor T².

    Args:
        student: Logits, any shape.
        teacher: Logits, the same shape.
        T: Temperature.
        form: 'kl' is 0 at equality; 'ce' is the binary cross entropy, larger by the teacher's entropy.

    Returns:
        The same shape.
    """
    student, teacher = student / T, teacher / T
    p_t = teacher.sigmoid()
    if form == 'ce':
        return F.binary_cross_entropy_with_logits(student, p_t, reduction='none')
    return p_t * (F.logsigmoid(teacher) - F.logsigmoid(student)) + (1 - p_t) * (
        F.logsigmoid(-teacher) - F.logsigmoid(-student)
    )


def normaliser(avg_factor: Tensor | float | None, otherwise: Tensor | float) -> Tensor | float:
    """``avg_factor``, or ``otherwise`` where it is None, and never below 1."""
    value = otherwise if avg_factor is None else avg_factor
    return value.clamp(min=1) if isinstance(value, Tensor) else max(float(value), 1.0)


# ------------------------------------------------------------------------------------------------------ attention


def channel_step(maps: Tensor) -> int:
    """Number of channels to work on at a time: temporaries stay in the caches of a CPU's cores, and small on a GPU."""
    numbers = 2**17 * torch.get_num_threads() if maps.device.type == 'cpu' else 2**25
    return max(8, numbers // max(1, maps[:, :1].numel()))  # of fewer channels, sums over channels would move more


def mean_abs(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute value over the channels and over the positions.

    Args:
        maps: Shape (B, C, H, W).

    Returns:
        Shapes (B, H, W) and (B, C).
    """
    spatial, channel = torch.zeros_like(maps[:, 0]), []
    for part in maps.split(channel_step(maps), dim=1):
        size = part.abs()
        spatial = spatial + size.sum(1)
        channel.append(size.mean((2, 3)))
    return spatial / maps.shape[1], torch.cat(channel, 1)


def spatial_attention(maps: Tensor, temp: float) -> Tensor:
    """``H W softmax_positions(mean_c |x| / temp)``: shape (B, C, H, W) to (B, H, W), mean 1 per image."""
    return scaled_softmax(mean_abs(maps)[0], temp)


def channel_attention(maps: Tensor, temp: float) -> Tensor:
    """``C softmax_channels(mean_hw |x| / temp)``: shape (B, C, H, W) to (B, C), mean 1 per image."""
    return scaled_softmax(mean_abs(maps)[1], temp)


def scaled_softmax(energy: Tensor, temp: float) -> Tensor:
    """Soft-max of ``energy / temp`` over all axes but the first, times their size: mean 1 per image."""
    flat = energy.flatten(1)
    return (flat.shape[1] * F.softmax(flat / temp, dim=1)).view_as(energy)


# ---------------------------------------------------------------------------------------------------------- boxes


def sizes_tensor(sizes: Sequence[Sequence[int]], like: Tensor) -> Tensor:
    """Host pairs (h, w) as a tensor of shape (B, 2) on the device of ``like``, without waiting for the device."""
    values = [[float(size[0]), float(size[1])] for size in sizes]
    return torch.tensor(values, dtype=like.dtype).view(-1, 2).to(like.device, non_blocking=True)


def box_cells(
    boxes: Sequence[Tensor], map_size: tuple[int, int], image_sizes: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """The cells that boxes touch, and one over their number.

    A box covers the columns ``floor(x1)`` to ``ceil(x2)``, both included, in units of cells, and the rows likewise.

    Args:
        boxes: Per image (n, 4), x1 y1 x2 y2 in pixels; n may be 0.
        map_size: (H, W) of the map.
        image_sizes: (h, w) per image: the pixels that correspond to the whole map.

    Returns:
        Cells, shape (B, n_max, 4), first column, first row, last column, last row as whole floats, not clipped to the
        map; images with fewer boxes are filled up with boxes that cover nothing. Weights ``1 / number of cells``
        (counted before any clipping), shape (B, n_max).
    """
    boxes = torch.nn.utils.rnn.pad_sequence(
        [b.reshape(-1, 4) for b in boxes], batch_first=True, padding_value=torch.nan
    )
    height, width = map_size
    if len({(float(h), float(w)) for h, w in (size[:2] for size in image_sizes)}) == 1:
        h, w = (float(v) for v in image_sizes[0][:2])
        x, y = boxes[..., 0::2] / w * width, boxes[..., 1::2] / h * height
    else:
        size = sizes_tensor(image_sizes, boxes)[:, :, None, None]
        x, y = boxes[..., 0::2] / size[:, 1] * width, boxes[..., 1::2] / size[:, 0] * height
    x1, x2 = x[..., 0].floor(), x[..., 1].ceil()
    y1, y2 = y[..., 0].floor(), y[..., 1].ceil()
    # A box that is upside down or has no number in it covers nothing: the weight only has to be finite.
    weight = torch.nan_to_num(1 / ((x2 - x1 + 1).clamp(min=1) * (y2 - y1 + 1).clamp(min=1)), nan=0.0)
    return torch.stack((x1, y1, x2, y2), -1), weight


def paint_boxes(cells: Tensor, weight: Tensor, map_size: tuple[int, int]) -> Tensor:
    """Per cell the largest weight of all boxes that cover it, 0 where none does.

    Boxes are sorted by weight and taken 24 at a time. Box number r of a group contributes ``2**-r`` to the cells it
    covers; the sum is one matrix product of row and column indicators, exact in float32 (and in TF32), and its exponent
    names the heaviest box that covers the cell. Cost and memory: B x ceil(n / 24) x H x W numbers, no loop over boxes.

    Args:
        cells: Shape (B, n, 4), first column, first row, last column, last row; may lie outside the map.
        weight: Shape (B, n), not negative.
        map_size: (H, W).

    Returns:
        Shape (B, H, W), of the type of ``weight``.
    """
    (batch, number), (height, width) = weight.shape, map_size
    if number == 0:
        return weight.new_zeros(batch, height, width)
    weight, order = weight.sort(dim=1, descending=True, stable=True)
    cells = cells.gather(1, order[..., None].expand_as(cells))
    group = min(number, _BOXES_PER_NUMBER)
    groups = -(-number // group)
    if groups * group > number:
        cells = F.pad(cells, (0, 0, 0, groups * group - number), value=torch.nan)  # comparisons with nan are false
        weight = F.pad(weight, (0, groups * group - number))
    x1, y1, x2, y2 = cells[..., None].unbind(-2)
    column = torch.arange(width, device=cells.device)
    row = torch.arange(height, device=cells.device)
    power = torch.exp2(-torch.arange(group, device=cells.device, dtype=torch.float32)).repeat(groups)[:, None]
    columns = ((column >= x1) & (column <= x2)).float().view(batch * groups, group, width)
    rows = (((row >= y1) & (row <= y2)).float() * power).view(batch * groups, group, height)
    with torch.autocast(weight.device.type, enabled=False):
        code = torch.bmm(rows.transpose(1, 2), columns).view(batch, groups, height * width)
    first = (1 - torch.frexp(code).exponent).clamp(min=0, max=group - 1).long()
    found = weight.view(batch, groups, group).gather(2, first).masked_fill(code == 0, 0)
    return found.amax(1).view(batch, height, width)


def box_masks(
    boxes: Sequence[Tensor], map_size: tuple[int, int], image_sizes: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor]:
    """Foreground and background masks of ground-truth boxes.

    Args:
        boxes: Per image (n, 4), x1 y1 x2 y2 in pixels.
        map_size: (H, W) of the map.
        image_sizes: (h, w) per image: the pixels that correspond to the whole map.

    Returns:
        Foreground, shape (B, H, W): one over the area in cells of the smallest box that covers the cell, 0 elsewhere.
        Background, shape (B, H, W): constant where the foreground is 0, summing to 1 per image, 0 elsewhere (all 0 if
        there is no background).
    """
    cells, weight = box_cells(boxes, map_size, image_sizes)
    foreground = paint_boxes(cells, weight, map_size)
    background = (foreground == 0).to(foreground.dtype)
    return foreground, background / background.sum((1, 2), keepdim=True).clamp(min=1)


def check_boxes(name: str, boxes: Sequence[Tensor], batch: int) -> list[Tensor]:
    """The boxes as plain float tensors of shape (n, 4), one per image.

    Args:
        name: The loss, for the message.
        boxes: Per image (n, 4), or empty of any shape, or an object with such a ``tensor``.
        batch: Number of images expected.

    Raises:
        ValueError: If the number of entries is not ``batch`` or a shape is wrong.
    """
    boxes = [getattr(b, 'tensor', b) for b in boxes]
    shapes = [tuple(b.shape) for b in boxes]
    if len(boxes) != batch or any(b.numel() and (b.dim() != 2 or b.shape[1] != 4) for b in boxes):
        raise ValueError(
            f'{name}: gt_bboxes must hold one tensor of shape (n, 4) for each of {batch} images, found {shapes}.'
        )
    return [upcast(b if b.is_floating_point() else b.float()).detach().reshape(-1, 4) for b in boxes]


def padding_mask(
    image_sizes: Sequence[Sequence[int]],
    batch_input_shape: Sequence[int],
    map_size: tuple[int, int],
    device: torch.device,
) -> Tensor | None:
    """Cells of a map that no pixel of the image touches: the padding on the right and at the bottom.

    Args:
        image_sizes: (h, w) per image, without padding.
        batch_input_shape: (h, w) of the padded batch.
        map_size: (H, W) of the map.
        device: Where the mask is needed.

    Returns:
        Shape (B, H, W), True on padding; None if there is none in the whole batch (decided on the host).
    """
    (height, width), (full_h, full_w) = map_size, (int(v) for v in batch_input_shape[:2])
    inside = [(-(-int(s[0]) * height // full_h), -(-int(s[1]) * width // full_w)) for s in image_sizes]
    if all(h >= height and w >= width for h, w in inside):
        return None
    inside = [(max(h, 1), max(w, 1)) for h, w in inside]  # a soft-max over nothing is no number
    inside = torch.tensor(inside).to(device, non_blocking=True)[:, :, None, None]
    row = torch.arange(height, device=device)[:, None]
    column = torch.arange(width, device=device)
    return (row >= inside[:, 0]) | (column >= inside[:, 1])
