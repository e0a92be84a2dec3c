"""Attention transfer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import full_precision
from ._fused import position_means
from ._maps import check_pair, pool_to_smaller


@MODELS.register_module()
class ATLoss(nn.Module):
    r"""Attention transfer of one feature map: it compares where the maps are strong, over all channels together.

    .. math::
        L = \frac{w}{B n} \sum_{b, i} \big( q_i(s) - q_i(t) \big)^2, \quad
        q(x) = \frac{a}{\lVert a \rVert_2}, \quad a_i = \mathrm{mean}_c \, |x_{c, i}|^p

    with ``n`` positions. A map without any activation has the attention 0, and gradient 0. If the sizes differ, the
    larger map is first average-pooled to (h, w) of the smaller. The mean over positions makes large levels count
    little; ``sum_positions`` leaves out ``1 / n``, so that all levels of a pyramid count alike.

    Reference: Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928. Published
    weight with this mean: 1000 (CIFAR).

    Extra memory: blocks of a few channels; nothing is kept for the backward pass but the maps.

    Shape:
        - student: (B, C_s, H_s, W_s)
        - teacher: (B, C_t, H_t, W_t)
        - result: scalar

    Args:
        p: Power of the activations.
        loss_weight: Factor of the whole.
        sum_positions: Sum over the positions where the published code takes the mean.
    """

    same_channels = False

    def __init__(self, p: float = 2, loss_weight: float = 1.0, sum_positions: bool = False) -> None:
        super().__init__()
        self.p, self.loss_weight, self.sum_positions = p, loss_weight, sum_positions

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            student: Shape (B, C_s, H_s, W_s).
            teacher: Shape (B, C_t, H_t, W_t).

        Returns:
            Scalar.

        Raises:
            ValueError: If one is no map, or the batches differ.
        """
        check_pair('ATLoss', student, teacher)
        student, teacher = pool_to_smaller(student, teacher)
        difference = F.mse_loss(self.attention(student), self.attention(teacher))
        return self.loss_weight * (student.shape[2] * student.shape[3] if self.sum_positions else 1) * difference

    def attention(self, maps: Tensor) -> Tensor:
        """Attention of unit length: shape (B, C, H, W) to (B, H * W)."""
        return F.normalize(position_means(maps, self.p), dim=1)
