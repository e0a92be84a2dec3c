"""Neuron selectivity transfer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import full_precision
from ._maps import check_pair, pool_to_smaller


@MODELS.register_module()
class NSTLoss(nn.Module):
    r"""Neuron selectivity transfer of one feature map: where do the channels fire, as a set?

    Each channel map of unit length is one sample; the loss is the squared maximum mean discrepancy of the student's and
    the teacher's samples under the kernel :math:`(u \cdot v)^2`:

    .. math::
        L = w \big( M(t, t) + M(s, s) - 2 M(s, t) \big), \quad
        M(a, b) = \mathrm{mean}_{b, i, j} \, (u_{a, i} \cdot u_{b, j})^2

    It does not depend on the order, number or scale of the channels. A channel without any activation is the sample 0.
    If the sizes differ, the larger map is first average-pooled to (h, w) of the smaller.

    Reference: Huang and Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", arXiv
    1707.01219 (kernel of degree 2 without constant). Published weight: 50.

    Extra memory: three matrices of B x C x C (maps with fewer positions than channels: of B x HW x HW, and the maps of
    unit length).

    Shape:
        - student: (B, C_s, H_s, W_s)
        - teacher: (B, C_t, H_t, W_t)
        - result: scalar

    Args:
        loss_weight: Factor of the whole.
    """

    same_channels = False

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

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
        check_pair('NSTLoss', student, teacher)
        student, teacher = (x.flatten(2) for x in pool_to_smaller(student, teacher))
        if student.shape[2] < min(student.shape[1], teacher.shape[1]):
            means = self._by_positions(student, teacher)
        else:
            means = self._by_channels(student, teacher)
        of_both, of_student, of_teacher = means
        return self.loss_weight * (of_teacher + of_student - 2 * of_both)

    @staticmethod
    def _by_channels(student: Tensor, teacher: Tensor) -> list[Tensor]:
        """The three means from products of channels; the maps are normalised inside the products."""
        gram_s, gram_t = (torch.bmm(x, x.detach().transpose(1, 2)) for x in (student, teacher))
        # Both factors have the same gradient, as what follows is symmetric: twice the first saves a map.
        gram_s = 2 * gram_s - gram_s.detach()
        # As a squared length; below the limit the gradient of clamp is 0.
        length_s, length_t = (g.diagonal(dim1=1, dim2=2).clamp(min=1e-24).sqrt() for g in (gram_s, gram_t))
        product = torch.bmm(student, teacher.transpose(1, 2))
        return [
            (g / first[:, :, None] / second[:, None]).square().mean()
            for g, first, second in (
                (product, length_s, length_t),
                (gram_s, length_s, length_s),
                (gram_t, length_t, length_t),
            )
        ]

    @staticmethod
    def _by_positions(student: Tensor, teacher: Tensor) -> list[Tensor]:
        """The three means from products of positions: sum (u_i . v_j)^2 = <U'U, V'V>."""
        student, teacher = F.normalize(student, dim=2), F.normalize(teacher, dim=2)
        gram_s, gram_t = (torch.bmm(x.transpose(1, 2), x) / x.shape[1] for x in (student, teacher))
        return [(a * b).sum((1, 2)).mean() for a, b in ((gram_s, gram_t), (gram_s, gram_s), (gram_t, gram_t))]
