"""Scale-decoupled distillation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS

from ._functional import full_precision, shape_of, softmax_kl
from ._rows import counted_rows, row_mean
from .temperature import make_temperature, standardise, temperature_of


@MODELS.register_module()
class SDDLoss(nn.Module):
    r"""Soft targets of an instance as a whole and of its parts; parts that contradict the whole count double.

    .. math::
        L = \frac{T^2}{N R} \sum_{i, r} w_{ir} \, \mathrm{KL}(p_{t,ir} \,\|\, p_{s,ir}), \quad
        w_{ir} = 1 \text{ if } [\hat c_{i0} = y_i] = [\hat c_{ir} = y_i], \text{ else } w

    Region 0 is the whole; :math:`\hat c_{ir}` is the teacher's best class in a region and y the label. Logits of the
    regions come from :func:`spatial_pyramid` and the classifier that each model has, see :func:`regional_logits`.

    Rows whose label is no column do not count; ``foreground_only`` also leaves out the last column.

    Reference: Wei, Luo and Luo, "Scaled Decoupled Distillation", CVPR 2024, arXiv 2403.13512.

    Extra memory: about six tensors of N x K x R.

    Shape:
        - student, teacher: logits (N, K, R), the whole first
        - labels, label_weights: (N,)
        - result: scalar

    Args:
        temperature: Temperature T.
        weight_complementary: Weight w of regions that contradict the whole.
        weight_consistent: Weight of those that agree.
        standardize: Standardise the logits of each region first; for K > 2.
        foreground_only: Leave out rows labelled with the last column, MMDetection's background of soft-max heads. The
            normaliser is then the number of rows left, whatever ``avg_factor`` says.
        loss_weight: Factor of the whole.
    """

    same_channels = True

    def __init__(
        self,
        temperature: float | dict | nn.Module = 4.0,
        weight_complementary: float = 2.0,
        weight_consistent: float = 1.0,
        standardize: bool = False,
        foreground_only: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.temperature = make_temperature('SDDLoss', 'temperature', temperature)
        self.weight_complementary, self.weight_consistent = weight_complementary, weight_consistent
        self.standardize, self.foreground_only, self.loss_weight = standardize, foreground_only, loss_weight

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
            student: Logits of the regions, shape (N, K, R); N may be 0.
            teacher: The same shape.
            labels: Class of each instance, shape (N,), int.
            label_weights: Weight of each instance, shape (N,).
            avg_factor: Normaliser; None: the number of instances that count.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        others = [x for x in (labels, label_weights) if x is not None]
        if student.dim() != 3 or student.shape != teacher.shape or any(x.shape != student.shape[:1] for x in others):
            raise ValueError(
                'SDDLoss: student and teacher must be logits of equal shape (N, K, R), labels and label_weights (N,), '
                f'found student {shape_of(student)}, teacher {shape_of(teacher)}, '
                f'{", ".join(f"{name} {shape_of(x)}" for name, x in zip(("labels", "label_weights"), others))}.'
            )
        weights = counted_rows(labels, label_weights, student, self.foreground_only)
        region = self.region_weight(teacher, labels)
        student, teacher = student.transpose(1, 2), teacher.transpose(1, 2)
        if self.standardize:
            student, teacher = standardise(student), standardise(teacher)
        T = temperature_of(self.temperature)
        rows = (region * softmax_kl(student, teacher, T)).mean(1)
        return self.loss_weight * T**2 * row_mean(rows, weights, None if self.foreground_only else avg_factor)

    def region_weight(self, teacher: Tensor, labels: Tensor) -> Tensor:
        """The weight of each region, shape (N, R), from the teacher's logits (N, K, R) and the labels (N,)."""
        right = teacher.argmax(1) == labels[:, None]
        weights = torch.full(right.shape, self.weight_consistent, dtype=teacher.dtype, device=teacher.device)
        return weights.masked_fill(right != right[:, :1], self.weight_complementary)


def spatial_pyramid(features: Tensor, M: Sequence[int] = (1, 2, 4)) -> Tensor:
    """Means over the cells of a pyramid of grids.

    The grids are pooled out of the finest of them, not out of the map: it makes a difference where the map's size is no
    multiple of the finest grid's.

    Args:
        features: Shape (N, C, H, W), such as the RoI maps of a second stage.
        M: Sizes of the grids, the whole first; each must divide the last.

    Returns:
        Shape (N, C, R), R the sum of the squares: grid after grid, row after row.

    Raises:
        ValueError: If ``features`` is no map.
        ConfigError: If the sizes do not fit.
    """
    sizes = list(M)
    if not sizes or sizes[0] != 1 or sizes != sorted(sizes) or any(m < 1 or sizes[-1] % m for m in sizes):
        raise ConfigError(f'SDDLoss: M={M!r}, expected growing sizes from 1 that divide the last, such as [1, 2, 4].')
    if features.dim() != 4:
        raise ValueError(f'SDDLoss: a map of shape (N, C, H, W) is expected, found {shape_of(features)}.')
    finest = F.adaptive_avg_pool2d(features, sizes[-1])
    return torch.cat([F.adaptive_avg_pool2d(finest, m).flatten(2) for m in sizes], 2)


def regional_logits(features: Tensor, classifier: nn.Module, M: Sequence[int] = (1, 2, 4)) -> Tensor:
    """Logits of the regions of a map, by the classifier that a model has for the whole.

    Args:
        features: Shape (N, C, H, W).
        classifier: From (..., C) to (..., K).
        M: Sizes of the grids, see :func:`spatial_pyramid`.

    Returns:
        Shape (N, K, R).
    """
    return classifier(spatial_pyramid(features, M).transpose(1, 2)).transpose(1, 2)
