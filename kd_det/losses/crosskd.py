"""Cross-head distillation of sigmoid scores."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS

from ._functional import full_precision
from ._rows import counted_rows, logit_rows, row_mean


@MODELS.register_module()
class QFLKDLoss(nn.Module):
    r"""Quality focal loss of sigmoid scores against the teacher's scores.

    .. math::
        L = \frac{1}{N} \sum_i w_i \sum_c |\sigma(s_{ic}) - q_{ic}|^\beta \, \mathrm{BCE}(\sigma(s_{ic}), q_{ic}),
        \quad q = \sigma(t)

    The gradient flows through the factor too, and the factor makes the loss 0 at equality. N is ``avg_factor``, or else
    the sum of the rows' highest teacher scores, at least 1: a mean over all anchors would drown the few objects.

    Reference: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024,
    arXiv 2306.11369 (there the student's scores come from the teacher's head; any two sets of scores fit here).

    Extra memory: about four tensors of N x K.

    Shape:
        - student, teacher: logits (N, K) or (B, K, H, W)
        - label_weights: (N,) or (B, H, W)
        - result: scalar

    Args:
        beta: Exponent of the factor: 0 (plain cross entropy), or 1 and above.
        loss_weight: Factor of the whole; the authors take 1, and 0.4 for FCOS.
    """

    same_channels = True

    def __init__(self, beta: float = 1.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        if beta != 0 and not beta >= 1:
            raise ConfigError(f'QFLKDLoss: beta={beta!r}, expected 0, or 1 and above: between, equality has no slope.')
        self.beta, self.loss_weight = beta, loss_weight

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
            label_weights: Weight of each row, shape (N,) or (B, H, W).
            avg_factor: Normaliser, at least 1; None: the sum of the teacher's highest scores.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        student, teacher, others = logit_rows('QFLKDLoss', student, teacher, label_weights=label_weights)
        weights = counted_rows(None, others['label_weights'], student)
        q = teacher.sigmoid()
        if avg_factor is None:
            scores = q.amax(1)
            avg_factor = (scores if weights is None else scores * weights).sum()
        entropy = F.binary_cross_entropy_with_logits(student, q, reduction='none')
        if self.beta:
            entropy = entropy * (student.sigmoid() - q).abs() ** self.beta
        return self.loss_weight * row_mean(entropy.sum(1), weights, avg_factor)
