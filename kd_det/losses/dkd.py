"""Decoupled knowledge distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import full_precision, softmax_kl
from ._rows import counted_rows, logit_rows, nothing, row_mean
from .temperature import make_temperature, standardise, temperature_of


@MODELS.register_module()
class DKDLoss(nn.Module):
    r"""Soft targets in two parts, weighted apart: the true class against the rest, and the rest among themselves.

    .. math::
        L = \alpha \frac{T^2}{N} \sum_i \mathrm{KL}\big((q_y, 1 - q_y) \,\|\, (p_y, 1 - p_y)\big)
          + \beta \frac{T^2}{N} \sum_i \mathrm{KL}(\hat q \,\|\, \hat p)

    p and q are the student's and the teacher's soft-max of ``z / T``, y the label of the row, and the hatted ones the
    soft-max over the K - 1 classes without y. All works on logarithms, so huge logits stay finite.

    Defaults are those of detection (second stage, with the background among the classes); for classification the paper
    has ``alpha=1, beta=8, temperature=4`` and a warm-up. Rows whose label is no column (the background of sigmoid
    heads) do not count; ``foreground_only`` also leaves out the last column. With K = 2 the second part is 0, with
    K = 1 both are.

    Reference: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, arXiv 2203.08679.

    Extra memory: about eight tensors of N x K.

    Shape:
        - student, teacher: logits (N, K) or (B, K, H, W)
        - labels, label_weights: (N,) or (B, H, W)
        - result: scalar

    Args:
        alpha: Weight of the true class against the rest.
        beta: Weight of the rest.
        temperature: Temperature T.
        standardize: Standardise the logits of each row first; for K > 2.
        foreground_only: Leave out rows labelled with the last column, MMDetection's background of soft-max heads. The
            normaliser is then the number of rows left, whatever ``avg_factor`` says.
        loss_weight: Factor of the whole.
    """

    same_channels = True
    row_adapter = 'kd_det.DenseRows'

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 0.25,
        temperature: float | dict | nn.Module = 1.0,
        standardize: bool = False,
        foreground_only: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = make_temperature('DKDLoss', 'temperature', temperature)
        self.alpha, self.beta, self.standardize = alpha, beta, standardize
        self.foreground_only, self.loss_weight = foreground_only, loss_weight

    @full_precision
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            student: Logits, shape (N, K) or (B, K, H, W); N may be 0.
            teacher: Logits of the same shape.
            labels: Class of each row, shape (N,) or (B, H, W), int.
            label_weights: Weight of each row, of the same shape.
            avg_factor: Normaliser; None: the number of rows that count.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        tckd, nckd = self.parts(student, teacher, labels, label_weights, avg_factor)
        return self.loss_weight * (self.alpha * tckd + self.beta * nckd)

    def parts(
        self,
        student: Tensor,
        teacher: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Both parts, with their factor T² and without weights."""
        student, teacher, others = logit_rows('DKDLoss', student, teacher, labels=labels, label_weights=label_weights)
        labels = others['labels']
        weights = counted_rows(labels, others['label_weights'], student, self.foreground_only)
        if self.foreground_only:
            avg_factor = None
        T = temperature_of(self.temperature)
        columns = student.shape[1]
        if columns < 2:
            zero = nothing(student) + T * 0
            return zero, zero
        if self.standardize:
            student, teacher = standardise(student), standardise(teacher)
        student, teacher = student / T, teacher / T
        target = labels.long().clamp(0, columns - 1)[:, None]
        rest = torch.arange(columns - 1, device=labels.device)
        rest = rest + (rest >= target)  # the K - 1 other columns of each row
        pair_s, pair_t = self._pair(student, target, rest), self._pair(teacher, target, rest)
        tckd = (pair_t.exp() * (pair_t - pair_s)).sum(1)
        nckd = softmax_kl(student.gather(1, rest), teacher.gather(1, rest))
        return T**2 * row_mean(tckd, weights, avg_factor), T**2 * row_mean(nckd, weights, avg_factor)

    @staticmethod
    def _pair(logits: Tensor, target: Tensor, rest: Tensor) -> Tensor:
        """Logarithms of the true class's probability and of all others' together, shape (N, 2)."""
        others = torch.logsumexp(logits.gather(1, rest), 1, keepdim=True)
        return F.log_softmax(torch.cat((logits.gather(1, target), others), 1), 1)
