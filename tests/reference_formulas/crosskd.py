"""Cross-head distillation (arXiv 2306.11369): all that a dense head predicts, row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from ._plain import kl_rows
from .qfl import elements


def formula(
    student: dict[str, Tensor],
    teacher: dict[str, Tensor],
    labels: Tensor,
    label_weights: Tensor,
    scores: Tensor,
    loss_dist: dict | None = None,
    centerness_weight: float = 1.0,
    normalize: str = 'scores',
) -> Tensor:
    """Scores, boxes, their distributions at temperature 1, and centerness."""
    number, divisor = (label_weights > 0).sum().clamp(min=1), scores.sum().clamp(min=1)
    total = (elements(student['cls'], teacher['cls'], 1.0).sum(1) * label_weights).sum() / number
    for i, score in enumerate(scores):
        total = total + score * (1 - _giou(student['boxes'][i], teacher['boxes'][i])) / divisor
        sides = kl_rows(student['dist'][4 * i : 4 * i + 4], teacher['dist'][4 * i : 4 * i + 4])
        total = total + score * sides.sum() / (4 * divisor)
        if labels[i] < student['cls'].shape[1]:
            p, q = torch.sigmoid(student['centerness'][i]), torch.sigmoid(teacher['centerness'][i])
            total = total - centerness_weight * (q * torch.log(p) + (1 - q) * torch.log(1 - p)) / number
    return total


def _giou(one: Tensor, other: Tensor) -> Tensor:
    def area(x1: Tensor, y1: Tensor, x2: Tensor, y2: Tensor) -> Tensor:
        return (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)

    low, high = torch.minimum(one, other), torch.maximum(one, other)
    common = area(high[0], high[1], low[2], low[3])
    union = area(*one) + area(*other) - common
    hull = area(low[0], low[1], high[2], high[3])
    return common / union - (hull - union) / hull
