"""Activation boundaries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS

from ._functional import check_maps, full_precision
from ._fused import channel_sums
from ._maps import ConvReg, check_levels, check_pair


@MODELS.register_module()
class ABLoss(nn.Module):
    r"""Activation boundaries of several maps before their ReLU: the student's neurons fire where the teacher's do.

    .. math::
        L = \frac{3 w}{1000 B} \sum_{i=0}^{n-1} 2^{i-n+1} \sum \max\big(0, m - \sigma s_i\big)^2, \quad
        \sigma = 1 \text{ where } t_i > 0, \text{ else } -1

    The sum over a level runs over C, H and W, so that it grows with the map. Where channels or sizes differ, the
    student first passes a connector, convolution and batch norm. What is compared must lie before a ReLU: on other maps
    the sign of the teacher bounds nothing.

    Reference: Heo et al., "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons", AAAI
    2019, arXiv 1811.03233. The authors use it in an initialising stage only.

    Extra memory: blocks of a few channels; connectors keep two maps of B x C_t x H x W per level.

    Shape:
        - student: list of maps (B, student_channels[i], H_i, W_i), largest first
        - teacher: list of maps (B, teacher_channels[i], H_i, W_i)
        - result: scalar

    Args:
        student_channels: Channels of each of the student's maps; None: as the teacher's, no connectors.
        teacher_channels: Channels of each of the teacher's maps.
        margin: The m of the formula.
        student_sizes: (h, w) of each of the student's maps, where sizes differ: the connector then converts them too.
        teacher_sizes: (h, w) of each of the teacher's maps, likewise.
        loss_weight: Factor of the whole.
    """

    same_channels = False
    multi_level = True

    def __init__(
        self,
        student_channels: Sequence[int] | None = None,
        teacher_channels: Sequence[int] | None = None,
        margin: float = 1.0,
        student_sizes: Sequence[Sequence[int]] | None = None,
        teacher_sizes: Sequence[Sequence[int]] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        for what, ours, theirs in (
            ('channels', student_channels, teacher_channels),
            ('sizes', student_sizes, teacher_sizes),
        ):
            if (ours is None) != (theirs is None) or (ours is not None and len(ours) != len(theirs)):
                raise ConfigError(
                    f'ABLoss: student_{what}={ours!r}, teacher_{what}={theirs!r}; expected one entry per level, as '
                    'many in both.'
                )
        if student_sizes is not None and (student_channels is None or len(student_channels) != len(student_sizes)):
            raise ConfigError(
                f'ABLoss: student_sizes={student_sizes!r} with student_channels={student_channels!r}; expected both, '
                'one entry per level.'
            )
        self.student_channels = None if student_channels is None else list(student_channels)
        self.teacher_channels = None if teacher_channels is None else list(teacher_channels)
        self.margin, self.loss_weight = margin, loss_weight
        self.connectors = nn.ModuleList()
        for i, (s, t) in enumerate(zip(student_channels or (), teacher_channels or ())):
            sizes = (student_sizes[i], teacher_sizes[i]) if student_sizes is not None else (None, None)
            same = s == t and (sizes[0] is None or tuple(sizes[0]) == tuple(sizes[1]))
            self.connectors.append(nn.Identity() if same else ConvReg(s, t, *sizes, use_relu=False))

    @full_precision
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Compute the loss.

        Args:
            student: Maps of shape (B, student_channels[i], H_i, W_i), before their ReLU.
            teacher: Maps of shape (B, teacher_channels[i], H_i, W_i), before their ReLU.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_levels('ABLoss', student, teacher)
        if self.student_channels is not None and len(student) != len(self.connectors):
            raise ValueError(f'ABLoss: {len(self.connectors)} levels are expected, found {len(student)}.')
        parts = []
        for i, (s, t) in enumerate(zip(student, teacher)):
            where = f'ABLoss: level {i}'
            if self.student_channels is not None:
                check_pair(where, s, t, self.student_channels[i], self.teacher_channels[i])
                s = self.connectors[i](s)
            check_maps(where, s, t)
            parts.append(2.0 ** (i - len(student) + 1) / t.shape[0] * self.boundary(s, t))
        return 3 / 1000 * self.loss_weight * torch.stack(parts).sum()

    def boundary(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The sum over one level, two maps of shape (B, C, H, W): a scalar."""
        margin = self.margin

        def short(s: Tensor, t: Tensor) -> Tensor:
            return (margin - torch.where(t > 0, s, -s)).relu_()

        def slope(s: Tensor, t: Tensor) -> Tensor:
            missing = short(s, t)
            return torch.where(t > 0, -2 * missing, 2 * missing)

        return channel_sums(lambda s, t: short(s, t).square_(), slope, student, teacher).sum()
