"""Soft targets."""

from __future__ import annotations

from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import binary_kl, full_precision, softmax_kl
from ._rows import counted_rows, logit_rows, row_mean
from .temperature import make_temperature, standardise, temperature_of


@MODELS.register_module()
class KDLoss(nn.Module):
    r"""Soft targets: the student's softened class distribution follows the teacher's.

    .. math::
        L = \frac{T^2}{N} \sum_i \sum_c p_{t,ic} \log \frac{p_{t,ic}}{p_{s,ic}}, \quad p = \mathrm{softmax}(z / T)

    Dense logits (B, K, H, W) count as N = B H W rows. Sigmoid heads (``use_sigmoid``) compare each class by itself,
    with the divergence of two Bernoulli distributions; N is then, where no ``avg_factor`` is given, the sum of the
    rows' highest teacher scores, at least 1: a mean over all anchors would drown the few objects.

    ``standardize`` puts z-scores of each row in the place of the logits (Sun et al., CVPR 2024, arXiv 2403.01427);
    ``T=dict(type='kd_det.CurriculumTemperature')`` learns T (Li et al., AAAI 2023, arXiv 2211.16231).

    Reference: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531.

    Extra memory: about four tensors of N x K.

    Shape:
        - student, teacher: logits (N, K) or (B, K, H, W)
        - label_weights: (N,) or (B, H, W)
        - result: scalar

    Args:
        T: Temperature.
        use_sigmoid: The heads use a sigmoid per class instead of a soft-max.
        standardize: Standardise the logits of each row first; for K > 2.
        loss_weight: Factor of the whole.
    """

    same_channels = True
    row_adapter = 'kd_det.DenseRows'

    def __init__(
        self,
        T: float | dict | nn.Module = 4.0,
        use_sigmoid: bool = False,
        standardize: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.T = make_temperature('KDLoss', 'T', T)
        self.use_sigmoid, self.standardize, self.loss_weight = use_sigmoid, standardize, loss_weight

    @full_precision
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            student: Logits, shape (N, K) or (B, K, H, W); N may be 0.
            teacher: Logits of the same shape.
            label_weights: Weight of each row, shape (N,) or (B, H, W); rows of weight 0 do not count.
            avg_factor: Normaliser; None: the number of rows that count, or the sum of the teacher's scores.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        student, teacher, others = logit_rows('KDLoss', student, teacher, label_weights=label_weights)
        weights = counted_rows(None, others['label_weights'], student)
        if self.use_sigmoid and avg_factor is None:
            scores = teacher.sigmoid().amax(1)
            avg_factor = (scores if weights is None else scores * weights).sum()
        if self.standardize:
            student, teacher = standardise(student), standardise(teacher)
        T = temperature_of(self.T)
        rows = binary_kl(student, teacher, T).sum(1) if self.use_sigmoid else softmax_kl(student, teacher, T)
        return self.loss_weight * T**2 * row_mean(rows, weights, avg_factor)
