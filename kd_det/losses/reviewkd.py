"""Knowledge review."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS

from ._functional import check_maps, full_precision
from ._maps import BatchNorm, check_levels, check_pair


def hcl(student: Tensor, teacher: Tensor, pool_sizes: Sequence[int] = (4, 2, 1)) -> Tensor:
    """Hierarchical context loss: mean squared differences of the maps and of their pooled forms, averaged.

    Args:
        student: Shape (B, C, H, W).
        teacher: Shape (B, C, H, W).
        pool_sizes: Side of each pooled form; one that is not below H is skipped. Every form that is used has half the
            weight of the one before; the maps themselves have 1.

    Returns:
        Scalar.
    """
    total, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    difference = student - teacher  # pooling is linear
    for size in pool_sizes:
        if size < student.shape[2]:
            weight /= 2
            weights += weight
            total = total + weight * F.adaptive_avg_pool2d(difference, size).square().mean()
    return total / weights


class ABF(nn.Module):
    """Attention-based fusion of one level with the deeper one.

    Args:
        in_channel: Channels of the student's map.
        mid_channel: Channels of what is passed on to the next level.
        out_channel: Channels of the teacher's map.
        fuse: Whether there is a deeper level.
    """

    def __init__(self, in_channel: int, mid_channel: int, out_channel: int, fuse: bool) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(in_channel, mid_channel, 1, bias=False), BatchNorm(mid_channel))
        self.conv2 = nn.Sequential(
            nn.Conv2d(mid_channel, out_channel, 3, padding=1, bias=False), BatchNorm(out_channel)
        )
        self.att_conv = nn.Sequential(nn.Conv2d(2 * mid_channel, 2, 1), nn.Sigmoid()) if fuse else None
        for conv in (self.conv1[0], self.conv2[0]):
            nn.init.kaiming_uniform_(conv.weight, a=1)

    def forward(self, maps: Tensor, deeper: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Shape (B, in_channel, H, W) and what the deeper level passed on, of any size, to the level's output
        (B, out_channel, H, W) and what it passes on (B, mid_channel, H, W)."""
        maps = self.conv1(maps)
        if self.att_conv is not None:
            deeper = F.interpolate(deeper, maps.shape[2:], mode='nearest')
            share = self.att_conv(torch.cat((maps, deeper), 1))
            maps = maps * share[:, :1] + deeper * share[:, 1:]
        return self.conv2(maps), maps


@MODELS.register_module()
class ReviewKDLoss(nn.Module):
    r"""Knowledge review of a pyramid: each level of the teacher is compared with a fusion of the student's same level
    and all deeper ones.

    From the deepest level upwards, with x what is passed on and y the nearest-neighbour resize of the deeper x:

    .. math::
        x_i = z_0 \, \mathrm{BN}(\mathrm{conv}_{1 \times 1}(s_i)) + z_1 \, y, \quad
        o_i = \mathrm{BN}(\mathrm{conv}_{3 \times 3}(x_i)), \quad
        L = w \sum_i \mathrm{HCL}(o_i, t_i)

    where z is a sigmoid of a 1x1 convolution of both, and HCL (:func:`hcl`) the weighted mean of the squared
    differences at full size and pooled to 4 x 4, 2 x 2 and 1 x 1. Where a level has a single value per channel (the
    last level of one small image), batch norm takes its running statistics.

    Reference: Chen et al., "Distilling Knowledge via Knowledge Review", CVPR 2021, arXiv 2104.09044. Published weights
    on all pyramid levels: 1.0 for ResNet-50 from ResNet-101.

    Extra memory: per level about five maps of B x mid_channel x H x W and three of B x C_t x H x W.

    Shape:
        - student: list of maps (B, student_channels[i], H_i, W_i), largest first
        - teacher: list of maps (B, teacher_channels[i], H_i, W_i)
        - result: scalar

    Args:
        student_channels: Channels of each of the student's maps.
        teacher_channels: Channels of each of the teacher's maps.
        mid_channel: Width of the fusion.
        pool_sizes: Sides of the pooled forms.
        loss_weight: Factor of the whole.
    """

    same_channels = False
    multi_level = True

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        mid_channel: int = 256,
        pool_sizes: Sequence[int] = (4, 2, 1),
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if len(student_channels) != len(teacher_channels) or not student_channels:
            raise ConfigError(
                f'ReviewKDLoss: student_channels={student_channels!r}, teacher_channels={teacher_channels!r}; expected '
                'one number per level, as many in both.'
            )
        self.student_channels, self.teacher_channels = list(student_channels), list(teacher_channels)
        self.pool_sizes, self.loss_weight = tuple(pool_sizes), loss_weight
        # Deepest first, as in the authors' checkpoints.
        self.abfs = nn.ModuleList(
            ABF(s, mid_channel, t, fuse=j > 0)
            for j, (s, t) in enumerate(zip(self.student_channels[::-1], self.teacher_channels[::-1]))
        )

    @full_precision
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Compute the loss.

        Args:
            student: Maps of shape (B, student_channels[i], H_i, W_i), largest first.
            teacher: Maps of shape (B, teacher_channels[i], H_i, W_i).

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_levels('ReviewKDLoss', student, teacher)
        if len(student) != len(self.abfs):
            raise ValueError(f'ReviewKDLoss: {len(self.abfs)} levels are expected, found {len(student)}.')
        for i, (s, t) in enumerate(zip(student, teacher)):
            check_maps(f'ReviewKDLoss: level {i}', s, t, self.student_channels[i], self.teacher_channels[i])
            check_pair(f'ReviewKDLoss: level {i}, with level 0', s, student[0])
        parts = [hcl(o, t, self.pool_sizes) for o, t in zip(self.fuse(student), teacher)]
        return self.loss_weight * torch.stack(parts).sum()

    def fuse(self, student: Sequence[Tensor]) -> list[Tensor]:
        """The student's pyramid after the fusion: shapes (B, teacher_channels[i], H_i, W_i), largest first."""
        outputs, deeper = [], None
        for abf, maps in zip(self.abfs, list(student)[::-1]):
            output, deeper = abf(maps, deeper)
            outputs.append(output)
        return outputs[::-1]
