"""Cross-head distillation: sigmoid scores alone, and all that a dense head predicts."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean
from kd_det.registry import MODELS

from ._functional import full_precision, normaliser, shape_of
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
    row_adapter = 'kd_det.DenseRows'

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


#: The authors' choice for RetinaNet.
_SCORES = dict(type='kd_det.QFLKDLoss', beta=1.0)
_BOXES = dict(type='mmdet.GIoULoss')
_NORMALIZE = ('positives', 'scores')


@MODELS.register_module()
class CrossKDLoss(nn.Module):
    r"""What the teacher's head predicts from the student's features against what it predicts from its own.

    With rows i (anchors or points), :math:`w_i` the weight of a row in the student's own loss, :math:`q_i` the
    teacher's highest class score where :math:`w_i > 0` and 0 elsewhere, :math:`N` the divisor of the student's own
    loss:

    .. math::
        L_{cls} = \frac{1}{N} \sum_i w_i\, \mathrm{QFL}(s_i, t_i), \quad
        L_{reg} = \frac{1}{Z} \sum_i q_i\, (1 - \mathrm{GIoU}(b^s_i, b^t_i)), \quad
        L_{dist} = \frac{1}{4 Z} \sum_i q_i \sum_{sides} \mathrm{KL}(d^t_i, d^s_i), \quad
        L_{ctr} = \frac{1}{N} \sum_{i \in \text{positive}} \mathrm{BCE}(c^s_i, \sigma(c^t_i))

    Z is N, or with ``normalize='scores'`` the sum of :math:`q`. Each part has the weight of its own config, and is
    there if it has one. Published: QFL and GIoU (RetinaNet; ATSS, with centerness), QFL and the distributions over the
    sum of scores (GFL), QFL at 0.4 and IoU at 0.75 (FCOS, where N is the sum of the centerness targets).
    :class:`~kd_det.adapters.CrossHead` gives the rows. The cross entropy of the centerness is not 0 at equality.

    Reference: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024,
    arXiv 2306.11369. N and Z of each detector: the authors' repository, jbwang1997/CrossKD.

    Extra memory: kept for the backward pass about five tensors of N x K, and where asked for six of N x 4 for boxes,
    two of 4 N x (n + 1) for distributions.

    Shape:
        - student, teacher: dicts with ``cls`` (N, K), and as asked for ``boxes`` (N, 4), ``dist`` (4 N, n + 1),
          ``centerness`` (N,)
        - labels, label_weights, scores: (N,)
        - result: dict of the scalars ``cls``, ``reg``, ``dist``, ``centerness``, as many as are asked for

    Args:
        loss_cls: Loss of class logits, :class:`QFLKDLoss` or one with the same arguments; None: none.
        loss_reg: One of mmdet's losses of boxes; None: none.
        loss_dist: Loss of soft-max logits, :class:`KDLoss` or one with the same arguments; None: none.
        centerness_weight: Weight of the centerness; 0: none.
        normalize: Z: the divisor of the student's own loss (``'positives'``), or the sum of the ``'scores'``.
    """

    same_channels = True

    def __init__(
        self,
        loss_cls: dict[str, Any] | None = _SCORES,
        loss_reg: dict[str, Any] | None = _BOXES,
        loss_dist: dict[str, Any] | None = None,
        centerness_weight: float = 0.0,
        normalize: str = 'positives',
    ) -> None:
        super().__init__()
        if normalize not in _NORMALIZE:
            raise ConfigError(
                f'CrossKDLoss: normalize={normalize!r}, expected one of {", ".join(map(repr, _NORMALIZE))}.'
                f'{did_you_mean(str(normalize), _NORMALIZE)}'
            )
        self.loss_cls, self.loss_reg, self.loss_dist = (
            None if cfg is None else MODELS.build(cfg) for cfg in (loss_cls, loss_reg, loss_dist)
        )
        self.centerness_weight, self.normalize = centerness_weight, normalize

    @full_precision
    def forward(
        self,
        student: dict[str, Tensor],
        teacher: dict[str, Tensor],
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
        scores: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
        score_sum: Tensor | float | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss.

        Args:
            student: What the teacher's head predicts from the student's features; for the keys see the class.
            teacher: What it predicts from its own.
            labels: The student's class targets, 0 to K - 1 for positives, shape (N,); needed for the centerness.
            label_weights: Weight of each row, shape (N,); None: 1.
            scores: Weight of each row's box, shape (N,); None: the teacher's highest class score.
            avg_factor: N; None: the number of rows that weigh anything. At least 1.
            score_sum: Sum of ``scores``; None: of those given. At least 1.

        Returns:
            The scalars ``cls``, ``reg``, ``dist``, ``centerness``, as many as are asked for.

        Raises:
            ValueError: If rows are missing or shapes do not fit.
        """
        cls = self._rows('cls', student, teacher, ('N', 'K'))
        rows = dict(labels=labels, label_weights=label_weights, scores=scores)
        for name, value in rows.items():
            if value is not None and value.shape != cls[0].shape[:1]:
                raise ValueError(
                    f'CrossKDLoss: {name} must have shape {tuple(cls[0].shape[:1])}, one number for each row of cls '
                    f'{shape_of(cls[0])}; found {shape_of(value)}.'
                )
        if label_weights is None:
            label_weights = cls[1].new_ones(len(cls[1]))
        if scores is None:
            scores = cls[1].sigmoid().amax(1) * (label_weights > 0)
        if avg_factor is None:
            avg_factor = (label_weights > 0).sum()
        if score_sum is None:
            score_sum = scores.sum()
        divisor = score_sum if self.normalize == 'scores' else avg_factor

        parts = {}
        if self.loss_cls is not None:
            parts['cls'] = self.loss_cls(*cls, label_weights=label_weights, avg_factor=avg_factor)
        if self.loss_reg is not None:
            boxes = self._rows('boxes', student, teacher, (len(scores), 4))
            parts['reg'] = row_mean(self.loss_reg(*boxes, reduction_override='none'), scores, divisor)
        if self.loss_dist is not None:
            sides = self._rows('dist', student, teacher, (4 * len(scores), 'n + 1'))
            # Each row has four sides, hence four times the divisor; which is at least 1 by itself.
            parts['dist'] = self.loss_dist(
                *sides, label_weights=scores.repeat_interleave(4), avg_factor=4 * normaliser(divisor, 1)
            )
        if self.centerness_weight:
            centre = self._rows('centerness', student, teacher, (len(scores),))
            if labels is None:
                raise ValueError('CrossKDLoss: centerness_weight needs labels.')
            positive = ((labels >= 0) & (labels < cls[0].shape[1])).to(centre[0])
            entropy = F.binary_cross_entropy_with_logits(centre[0], centre[1].sigmoid(), reduction='none')
            parts['centerness'] = self.centerness_weight * row_mean(entropy, positive, avg_factor)
        return parts

    @staticmethod
    def _rows(
        name: str, student: dict[str, Tensor], teacher: dict[str, Tensor], shape: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        """One kind of rows of both sides; letters in ``shape`` stand for any number."""
        pair = (student.get(name), teacher.get(name))
        found = [tuple(rows.shape) if isinstance(rows, Tensor) else None for rows in pair]
        fits = found[0] is not None and len(found[0]) == len(shape)
        if not fits or found[0] != found[1] or any(isinstance(n, int) and n != m for n, m in zip(shape, found[0])):
            raise ValueError(
                f'CrossKDLoss: student and teacher must have {name!r} of shape ({", ".join(map(str, shape))}); found '
                f'{shape_of(pair[0])} and {shape_of(pair[1])}.'
            )
        return pair
