"""Flow of the solution procedure."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import full_precision
from ._maps import check_level_shapes, check_levels, pool_to_smaller


@MODELS.register_module()
class FSPLoss(nn.Module):
    r"""Flow of the solution procedure: how the channels of neighbouring levels go together.

    .. math::
        L = w \sum_i \mathrm{mean} \big( (G_i(s) - G_i(t))^2 \big), \quad
        G_i(x)_{b, c', c} = \mathrm{mean}_p \, x_{i+1, b, c', p} \, x_{i, b, c, p}

    where the larger of the two levels was average-pooled to (h, w) of the smaller.

    Reference: Yim et al., "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer
    Learning", CVPR 2017. Published weight: 50, in a pre-training stage.

    Extra memory: per pair one pooled map and matrices of B x C x C, each formed by one matrix product.

    Shape:
        - student: list of n >= 2 maps (B, C_i, H_i, W_i), largest first
        - teacher: list of n maps (B, C_i, H'_i, W'_i)
        - result: scalar

    Args:
        loss_weight: Factor of the whole.
    """

    same_channels = True
    multi_level = True

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    @full_precision
    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Compute the loss.

        Args:
            student: n >= 2 maps, each of shape (B, C_i, H_i, W_i).
            teacher: n maps, each of shape (B, C_i, H'_i, W'_i).

        Returns:
            Scalar.

        Raises:
            ValueError: If there are fewer than two levels, or batches or channels differ.
        """
        check_levels('FSPLoss', student, teacher, least=2)
        check_level_shapes('FSPLoss', student, teacher)
        for i, (s, t) in enumerate(zip(student, teacher)):
            if s.shape[1] != t.shape[1]:
                raise ValueError(
                    f'FSPLoss: student and teacher must have the same number of channels, found student '
                    f'{tuple(s.shape)}, teacher {tuple(t.shape)} at level {i}.'
                )
        parts = [
            F.mse_loss(self.matrix(student[i], student[i + 1]), self.matrix(teacher[i], teacher[i + 1]))
            for i in range(len(student) - 1)
        ]
        return self.loss_weight * torch.stack(parts).sum()

    @staticmethod
    def matrix(bottom: Tensor, top: Tensor) -> Tensor:
        """The FSP matrix of two maps of shape (B, C, ., .) and (B, C', ., .): shape (B, C', C)."""
        bottom, top = (x.flatten(2) for x in pool_to_smaller(bottom, top))
        return torch.bmm(top, bottom.transpose(1, 2)) / top.shape[2]
