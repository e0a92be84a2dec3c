"""Similarity-preserving distillation."""

from __future__ import annotations

from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import full_precision
from ._rows import flat_rows, nothing, unit


@MODELS.register_module()
class SPLoss(nn.Module):
    r"""Similarities between rows: who resembles whom in the student as in the teacher.

    .. math::
        L = \frac{w}{N^2} \sum_{i, j} \big( A^s_{ij} - A^t_{ij} \big)^2, \quad
        A_{i \cdot} = \frac{x_i X^\top}{\lVert x_i X^\top \rVert_2}

    A row is what belongs to one instance, flattened; the widths of student and teacher may differ. The rows have to be
    many: instances, not the two images of a batch. Fewer than two give 0. A row of zeros stays zero.

    Reference: Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682. The paper's
    weight is 3000, for the last map of a classifier.

    Extra memory: about six matrices of N x N.

    Shape:
        - student: (N, ...)
        - teacher: (N, ...)
        - result: scalar

    Args:
        loss_weight: Factor w of the whole.
    """

    same_channels = False
    row_adapter = 'kd_det.Instances'

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

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
        student, teacher = flat_rows('SPLoss', student, teacher)
        if student.shape[0] < 2:
            return nothing(student)
        difference = unit(student @ student.T) - unit(teacher @ teacher.T)
        return self.loss_weight * difference.square().mean()
