"""Parts that several losses of feature maps share: size rules and small trainable layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._functional import check_maps, shape_of


def check_pair(
    name: str,
    student: Tensor,
    teacher: Tensor,
    student_channels: int | None = None,
    teacher_channels: int | None = None,
) -> None:
    """Check two maps that may differ in H and W, and in C too.

    Args:
        name: The loss, for the message.
        student: Shape (B, C_s, H_s, W_s).
        teacher: Shape (B, C_t, H_t, W_t).
        student_channels: The C_s that is expected; None: anything.
        teacher_channels: The C_t that is expected; None: anything.

    Raises:
        ValueError: If one is no map, the batches differ, or channels are not those that are expected.
    """
    shapes = f'student {shape_of(student)}, teacher {shape_of(teacher)}'
    if not all(isinstance(x, Tensor) and x.dim() == 4 for x in (student, teacher)):
        raise ValueError(f'{name}: two maps of shape (B, C, H, W) are expected, found {shapes}.')
    if student.shape[0] != teacher.shape[0]:
        raise ValueError(f'{name}: student and teacher must agree in B, found {shapes}.')
    for role, tensor, channels in (('student', student, student_channels), ('teacher', teacher, teacher_channels)):
        if channels is not None and tensor.shape[1] != channels:
            raise ValueError(f'{name}: the {role} must have {channels} channels ({role}_channels), found {shapes}.')


def check_levels(name: str, student: Sequence[Tensor], teacher: Sequence[Tensor], least: int = 1) -> None:
    """Check that two lists of maps have as many levels, at least ``least``.

    Raises:
        ValueError: If they do not, or if one is no list.
    """
    lists = all(isinstance(x, (list, tuple)) for x in (student, teacher))
    if not lists or len(student) != len(teacher) or len(student) < least:
        found = ', '.join(
            f'{role} [{", ".join(map(shape_of, x))}]' if isinstance(x, (list, tuple)) else f'{role} {shape_of(x)}'
            for role, x in (('student', student), ('teacher', teacher))
        )
        raise ValueError(f'{name}: two lists of as many maps, {least} or more, are expected, found {found}.')


def check_level_shapes(name: str, student: Sequence[Tensor], teacher: Sequence[Tensor], equal: bool = False) -> None:
    """Check each pair of two lists of maps; ``equal``: B, H and W must agree.

    Raises:
        ValueError: If one pair does not fit.
    """
    for i, (s, t) in enumerate(zip(student, teacher)):
        where = f'{name}: level {i}'
        if equal and isinstance(s, Tensor) and isinstance(t, Tensor):
            check_maps(where, s, t, s.shape[1] if s.dim() == 4 else None)
        check_pair(where, s, t)


def pool_to_smaller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool two maps to the smaller height and the smaller width of the two (adaptive pooling)."""
    size = (min(first.shape[2], second.shape[2]), min(first.shape[3], second.shape[3]))
    return tuple(x if tuple(x.shape[2:]) == size else F.adaptive_avg_pool2d(x, size) for x in (first, second))


class BatchNorm(nn.Module):
    """Batch norm whose statistics are those of one process, and which one single value per channel does not break.

    It has the parameters and buffers of ``nn.BatchNorm2d``. A single value, as of a 1x1 map of one image, is normalised
    by the running statistics. ``sync_bn`` of the runner leaves it alone: a process may have nothing to compare in a
    step, and the others would wait for it in vain.

    Args:
        channels: C.
        eps: Added to the variance.
        momentum: Share of a batch in the running statistics.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer('running_mean', torch.zeros(channels))
        self.register_buffer('running_var', torch.ones(channels))
        self.register_buffer('num_batches_tracked', torch.tensor(0))

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise maps of shape (B, C, H, W)."""
        by_batch = self.training and maps.shape[0] * maps.shape[2] * maps.shape[3] > 1
        if by_batch:
            self.num_batches_tracked += 1
        statistics = (self.running_mean, self.running_var)
        return F.batch_norm(maps, *statistics, self.weight, self.bias, by_batch, self.momentum, self.eps)

    @torch.no_grad()
    def track(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics with those of a batch, shape (C,), as :meth:`forward` does."""
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var), self.momentum)


class ConvReg(nn.Module):
    """Regressor from a student's map to a teacher's: a convolution that fits the sizes, batch norm, perhaps ReLU.

    Equal size: 1x1. Student twice as high: 3x3 with stride 2. Teacher twice as high: transposed 4x4 with stride 2.
    Student larger otherwise: an unpadded convolution that takes the difference off.

    Args:
        student_channels: C_s.
        teacher_channels: C_t.
        student_size: (h, w) of the student's maps; None: as the teacher's.
        teacher_size: (h, w) of the teacher's maps.
        use_relu: Whether a ReLU follows.

    Raises:
        ValueError: If the student is smaller, and not by half.
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        student_size: Sequence[int] | None = None,
        teacher_size: Sequence[int] | None = None,
        use_relu: bool = True,
    ) -> None:
        super().__init__()
        (s_h, s_w), (t_h, t_w) = student_size or (1, 1), teacher_size or student_size or (1, 1)
        channels = (student_channels, teacher_channels)
        if s_h == 2 * t_h:
            self.conv = nn.Conv2d(*channels, 3, stride=2, padding=1)
        elif 2 * s_h == t_h:
            self.conv = nn.ConvTranspose2d(*channels, 4, stride=2, padding=1)
        elif s_h >= t_h and s_w >= t_w:
            self.conv = nn.Conv2d(*channels, (1 + s_h - t_h, 1 + s_w - t_w))
        else:
            raise ValueError(
                f'No regressor leads from a student of size {(s_h, s_w)} to a teacher of size {(t_h, t_w)}: expected '
                'equal sizes, a factor of 2, or a larger student.'
            )
        self.bn = BatchNorm(teacher_channels)
        self.use_relu = use_relu

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C_s, h, w) of the student to (B, C_t, h, w) of the teacher."""
        maps = self.bn(self.conv(maps))
        return maps.relu() if self.use_relu else maps
