"""Distillation from a stronger teacher: correlations of predictions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import full_precision
from ._rows import counted_rows, logit_rows, nothing
from .temperature import make_temperature, standardise, temperature_of


@MODELS.register_module()
class DISTLoss(nn.Module):
    r"""Correlation of the predicted probabilities, per row and per class.

    .. math::
        L = \beta \tau^2 \big(1 - \overline{\rho(P_i, Q_i)}\big)
            + \gamma \tau^2 \big(1 - \overline{\rho(P^k, Q^k)}\big)

        \rho(a, b) = \frac{a' \cdot b'}{|a'| |b'| + 10^{-8}}, \quad a' = a - \bar a

    P and Q are the student's and the teacher's soft-max of ``z / tau``, or sigmoid (``use_sigmoid``), N x K: the first
    term compares each row (what this instance looks like), the second each column (which instances look like this
    class).

    The rows have to be instances: RoIs or positive anchors. With one or two classes the first term has no gradient
    (centred pairs of numbers are always collinear), so use ``beta=0``; with a few rows the second is noise. Fewer than
    two rows give 0. ``label_weights`` weigh the rows in both terms; rows whose label is no column, or with
    ``foreground_only`` the last column, do not count.

    Reference: Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv 2205.10536.

    Extra memory: about six tensors of N x K.

    Shape:
        - student, teacher: logits (N, K) or (B, K, H, W)
        - labels, label_weights: (N,) or (B, H, W)
        - result: scalar

    Args:
        beta: Weight of the comparison per row.
        gamma: Weight of the comparison per class.
        tau: Temperature.
        standardize: Standardise the logits of each row first; for K > 2.
        foreground_only: Leave out rows labelled with the last column, MMDetection's background of soft-max heads.
        eps: Added to the product of the norms.
        loss_weight: Factor of the whole.
        use_sigmoid: The heads use a sigmoid per class instead of a soft-max.
    """

    same_channels = True
    row_adapter = 'kd_det.DenseRows'

    def __init__(
        self,
        beta: float = 1.0,
        gamma: float = 1.0,
        tau: float | dict | nn.Module = 1.0,
        standardize: bool = False,
        foreground_only: bool = False,
        eps: float = 1e-8,
        loss_weight: float = 1.0,
        use_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        self.tau = make_temperature('DISTLoss', 'tau', tau)
        self.beta, self.gamma, self.eps, self.use_sigmoid = beta, gamma, eps, use_sigmoid
        self.standardize, self.foreground_only, self.loss_weight = standardize, foreground_only, loss_weight

    @full_precision
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            student: Logits, shape (N, K) or (B, K, H, W); N may be 0.
            teacher: Logits of the same shape.
            labels: Class of each row, shape (N,) or (B, H, W).
            label_weights: Weight of each row, of the same shape.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        inter, intra = self.parts(student, teacher, labels, label_weights)
        return self.loss_weight * (self.beta * inter + self.gamma * intra)

    def parts(
        self, student: Tensor, teacher: Tensor, labels: Tensor | None = None, label_weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The comparisons per row and per class, with their factor tau² and without weights."""
        student, teacher, others = logit_rows('DISTLoss', student, teacher, labels=labels, label_weights=label_weights)
        weights = counted_rows(others['labels'], others['label_weights'], student, self.foreground_only)
        tau = temperature_of(self.tau)
        if student.shape[0] < 2:
            zero = nothing(student) + tau * 0
            return zero, zero
        if self.standardize:
            student, teacher = standardise(student), standardise(teacher)
        p, q = (x.sigmoid() if self.use_sigmoid else x.softmax(1) for x in (student / tau, teacher / tau))
        if weights is None:
            weights = torch.ones_like(p[:, 0])
        number = weights.sum()
        share = (weights / number.masked_fill(number == 0, 1))[:, None]
        enough = ((weights > 0).sum() > 1).to(p.dtype)  # 0 also where a lone row would make constant columns

        rho = self._correlation(p - p.mean(1, keepdim=True), q - q.mean(1, keepdim=True), 1)
        inter = (share[:, 0] * (1 - rho)).sum()
        # Weights enter the sums over rows as whole numbers of rows would.
        root = torch.sqrt(weights)[:, None]
        columns = [root * (x - (share * x).sum(0, keepdim=True)) for x in (p, q)]
        intra = 1 - self._correlation(*columns, 0).mean()
        return tau**2 * inter * enough, tau**2 * intra * enough

    def _correlation(self, a: Tensor, b: Tensor, dim: int) -> Tensor:
        norms = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
        return (a * b).sum(dim) / (norms + self.eps)
