"""Probabilistic knowledge transfer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import full_precision
from ._rows import flat_rows, nothing, unit


@MODELS.register_module()
class PKTLoss(nn.Module):
    r"""Similarities between rows as probabilities: the teacher's neighbourhood of each row, and the student's.

    .. math::
        L = \frac{1}{N^2} \sum_{i, j} P^t_{ij} \log \frac{P^t_{ij} + \epsilon}{P^s_{ij} + \epsilon}, \quad
        P_{ij} = \frac{S_{ij}}{\sum_k S_{ik}}, \quad S_{ij} = \frac{\cos(x_i, x_j) + 1}{2}

    As in the authors' code the diagonal takes part and the mean is over all N², which makes the loss small: their
    weight is 30000. A row is what belongs to one instance, flattened; widths may differ. Fewer than two rows give 0.
    A row of zeros is orthogonal to all others and gets no gradient.

    Reference: Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018,
    arXiv 1803.10837.

    Extra memory: about eight matrices of N x N.

    Shape:
        - student: (N, ...)
        - teacher: (N, ...)
        - result: scalar

    Args:
        eps: Added to norms and probabilities.
        loss_weight: Factor of the whole.
    """

    same_channels = False
    row_adapter = 'kd_det.Instances'

    def __init__(self, eps: float = 1e-7, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.eps, self.loss_weight = eps, loss_weight

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            student: Shape (N, ...); N may be 0.
            teacher: Shape (N, ...).

        Returns:
            Scalar.

        Raises:
            ValueError: If the number of rows differs.
        """
        student, teacher = flat_rows('PKTLoss', student, teacher)
        if student.shape[0] < 2:
            return nothing(student)
        p_s, p_t = self._probabilities(student), self._probabilities(teacher)
        ratio = torch.log(p_t + self.eps) - torch.log(p_s + self.eps)
        return self.loss_weight * (p_t * ratio).mean()

    def _probabilities(self, rows: Tensor) -> Tensor:
        """P, shape (N, N)."""
        rows = unit(rows, self.eps)
        # Rounding may take a similarity of opposite rows just below 0.
        similarity = ((rows @ rows.T + 1) / 2).clamp(min=0)
        return similarity / similarity.sum(1, keepdim=True).clamp(min=0.25)
