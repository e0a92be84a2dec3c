"""Overhaul of feature distillation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean
from kd_det.registry import MODELS

from ._functional import check_maps, full_precision
from ._fused import channel_sums
from ._maps import BatchNorm, check_levels

_REDUCTIONS = ('sum', 'mean')


def margin_from_bn(weight: Tensor, bias: Tensor) -> Tensor:
    """Mean of the negative part of a normal distribution, per channel of the batch norm before a ReLU.

    With ``sd = |weight|`` and ``mu = bias``: ``mu - sd phi(mu / sd) / Phi`` where more than a thousandth of the
    distribution is negative (``Phi``, its share), else ``-3 sd``. A channel with ``sd = 0`` gives ``min(mu, 0)``.

    Args:
        weight: Shape (C,).
        bias: Shape (C,).

    Returns:
        Shape (C,).
    """
    sd, mu = weight.detach().abs(), bias.detach()
    ratio = mu / sd.clamp(min=torch.finfo(sd.dtype).tiny)
    share = 0.5 * torch.erfc(ratio / math.sqrt(2))
    density = torch.exp(-0.5 * ratio.square()) / math.sqrt(2 * math.pi)
    seen = share > 0.001
    margin = torch.where(seen, mu - sd * density / share.masked_fill(~seen, 1.0), -3 * sd)
    return torch.where(sd == 0, mu.clamp(max=0), margin)


def measured_margin(maps: Tensor) -> Tensor:
    """Mean of the negative values of each channel in a batch, (B, C, H, W) to (C,); 0 where there are none."""
    negative = maps < 0
    total = maps.clamp(max=0).sum((0, 2, 3))
    return total / (negative.sum((0, 2, 3)).to(maps.dtype) + 1e-6)


@MODELS.register_module()
class OFDLoss(nn.Module):
    r"""Overhaul of several maps before their ReLU: a partial L2 distance to the teacher's positive part.

    .. math::
        L = \frac{w}{B \cdot \mathrm{div}} \sum_{i=0}^{n-1} 2^{i-n+1} \sum \big( c_i(s_i) - t'_i \big)^2
            \, [c_i(s_i) > t'_i \text{ or } t'_i > 0], \quad t' = \max(t, \mathrm{margin}_c)

    with the connector c of a 1x1 convolution and batch norm. Where the teacher does not fire, the student only has to
    stay below the margin. The margin of a channel is the mean of its negative values: in closed form from the teacher's
    batch norm before the ReLU (``bn_weight``, ``bn_bias``, see :class:`~kd_det.adapters.TeacherNorms`), else measured
    on the batch, or as a running mean over batches.

    Reference: Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, arXiv 1904.01866.

    Extra memory: per level two maps of B x C_t x H x W, those of the connector, and blocks of a few channels.

    Shape:
        - student: list of maps (B, student_channels[i], H_i, W_i), largest first
        - teacher: list of maps (B, teacher_channels[i], H_i, W_i)
        - result: scalar

    Args:
        student_channels: Channels of each of the student's maps.
        teacher_channels: Channels of each of the teacher's maps.
        loss_divisor: The div of the formula; published: 1000 (CIFAR), 10000 (ImageNet).
        reduction: 'sum', as the formula, or 'mean': each level gives the mean over B, C, H and W, without its power
            of 2 and without ``loss_divisor``.
        margin_momentum: Share of each batch in the running mean of measured margins, such as 0.1; it starts with the
            first batch, is kept in checkpoints and is the mean over processes. None: each batch has its own margins.
        loss_weight: Factor of the whole.
    """

    same_channels = False
    multi_level = True

    def __init__(
        self,
        student_channels: Sequence[int],
        teacher_channels: Sequence[int],
        loss_divisor: float = 1000.0,
        reduction: str = 'sum',
        margin_momentum: float | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if reduction not in _REDUCTIONS:
            hint = did_you_mean(str(reduction), _REDUCTIONS)
            raise ConfigError(f"OFDLoss: reduction={reduction!r}, expected 'sum' or 'mean'.{hint}")
        if len(student_channels) != len(teacher_channels) or not student_channels:
            raise ConfigError(
                f'OFDLoss: student_channels={student_channels!r}, teacher_channels={teacher_channels!r}; expected one '
                'number per level, as many in both.'
            )
        if margin_momentum is not None and not 0 < margin_momentum <= 1:
            raise ConfigError(f'OFDLoss: margin_momentum={margin_momentum!r}, expected None or a share of at most 1.')
        self.student_channels, self.teacher_channels = list(student_channels), list(teacher_channels)
        self.margin_momentum = margin_momentum
        if margin_momentum is not None:
            self.register_buffer('batches', torch.zeros(len(teacher_channels)))
            for i, channels in enumerate(teacher_channels):
                self.register_buffer(f'margin_{i}', torch.zeros(channels))
        self.loss_divisor, self.reduction, self.loss_weight = loss_divisor, reduction, loss_weight
        self.connector = nn.ModuleList(
            nn.Sequential(nn.Conv2d(s, t, 1, bias=False), BatchNorm(t))
            for s, t in zip(student_channels, teacher_channels)
        )
        for conv, _ in self.connector:
            nn.init.normal_(conv.weight, std=math.sqrt(2 / conv.out_channels))

    @full_precision
    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor],
        bn_weight: Sequence[Tensor | None] | None = None,
        bn_bias: Sequence[Tensor | None] | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            student: Maps of shape (B, student_channels[i], H_i, W_i), before their ReLU.
            teacher: Maps of shape (B, teacher_channels[i], H_i, W_i), before their ReLU.
            bn_weight: Weight of the teacher's batch norm before each map, each of shape (teacher_channels[i],); None,
                for all or for one: measure the margins.
            bn_bias: Its bias, likewise.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_levels('OFDLoss', student, teacher)
        levels = len(self.connector)
        if len(student) != levels:
            raise ValueError(f'OFDLoss: {levels} levels are expected, found {len(student)}.')
        if (bn_weight is None) != (bn_bias is None):
            raise ValueError('OFDLoss: bn_weight and bn_bias belong together; found only one of them.')
        parts = []
        for i, (s, t) in enumerate(zip(student, teacher)):
            check_maps(f'OFDLoss: level {i}', s, t, self.student_channels[i], self.teacher_channels[i])
            margin = self.given_margin(i, t, bn_weight, bn_bias)
            if margin is None:
                margin = self.measured(i, t)
            total = self.distance(self.connector[i](s), t, margin)
            if self.reduction == 'mean':
                parts.append(total / t.numel())
            else:
                parts.append(total * 2.0 ** (i - levels + 1) / (t.shape[0] * self.loss_divisor))
        return self.loss_weight * torch.stack(parts).sum()

    @staticmethod
    def given_margin(
        level: int, teacher: Tensor, weights: Sequence[Tensor | None] | None, biases: Sequence[Tensor | None] | None
    ) -> Tensor | None:
        """The margin of one level from its batch norm; None if there is none.

        Raises:
            ValueError: If shapes do not fit.
        """
        if weights is None:
            return None
        weight, bias = (x[level] if level < len(x) else None for x in (weights, biases))
        if weight is None and bias is None and level < len(weights):
            return None
        shapes = [None if x is None else tuple(x.shape) for x in (weight, bias)]
        if shapes != [(teacher.shape[1],)] * 2:
            raise ValueError(
                f'OFDLoss: level {level}: bn_weight and bn_bias must have shape {(teacher.shape[1],)}, found '
                f'{shapes[0]} and {shapes[1]}.'
            )
        return margin_from_bn(weight, bias).to(teacher.dtype)

    @torch.no_grad()
    def measured(self, level: int, teacher: Tensor) -> Tensor:
        """The measured margin of one level, (B, C, H, W) to (C,): of this batch, or the running mean."""
        margin = measured_margin(teacher)
        if self.margin_momentum is None:
            return margin
        running = getattr(self, f'margin_{level}')
        if self.training:
            if dist.is_available() and dist.is_initialized():
                dist.all_reduce(margin)
                margin /= dist.get_world_size()
            share = torch.where(self.batches[level] == 0, 1.0, self.margin_momentum).to(running.dtype)
            running.lerp_(margin.to(running.dtype), share)
            self.batches[level] += 1
        return running.to(teacher.dtype, copy=True)

    @staticmethod
    def distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
        """The partial distance, summed: two maps of shape (B, C, H, W) and a margin of shape (C,) to a scalar."""

        def error(s: Tensor, t: Tensor, least: Tensor) -> Tensor:
            target = torch.maximum(t, least)
            counts = (s > target) | (target > 0)
            return (s - target).masked_fill_(~counts, 0)

        def slope(s: Tensor, t: Tensor, least: Tensor) -> Tensor:
            return error(s, t, least).mul_(2)

        return channel_sums(lambda *parts: error(*parts).square_(), slope, student, teacher, margin).sum()
