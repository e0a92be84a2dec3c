"""Overhaul of feature distillation (arXiv 1904.01866)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ._plain import batch_norm, conv


def formula(
    student: list[Tensor],
    teacher: list[Tensor],
    module: nn.Module,
    bn_weight: list[Tensor] | None = None,
    bn_bias: list[Tensor] | None = None,
    loss_divisor: float = 1000.0,
    reduction: str = 'sum',
) -> Tensor:
    """Level by level: the partial distance to the teacher's map above the margins, from its batch norms or measured."""
    total, levels = 0.0, len(student)
    for i, (s, t) in enumerate(zip(student, teacher)):
        s = batch_norm(conv(s, module.connector[i][0]), module.connector[i][1])
        if bn_weight is None:
            negative = t < 0
            margin = torch.where(negative, t, 0.0).sum((0, 2, 3)) / (negative.to(t.dtype).sum((0, 2, 3)) + 1e-6)
        else:
            margin = t.new_tensor([_margin(abs(w), b) for w, b in zip(bn_weight[i].tolist(), bn_bias[i].tolist())])
        target = torch.maximum(t, margin[None, :, None, None])
        error = torch.where((s > target) | (target > 0), (s - target) ** 2, 0.0)
        if reduction == 'mean':
            total = total + error.mean()
        else:
            total = total + error.sum() / 2 ** (levels - 1 - i) / len(t) / loss_divisor
    return total


def _margin(deviation: float, mean: float) -> float:
    share = 0.5 * math.erfc(mean / deviation / math.sqrt(2))
    if share <= 0.001:
        return -3 * deviation
    density = math.exp(-0.5 * (mean / deviation) ** 2) / math.sqrt(2 * math.pi)
    return mean - deviation * density / share
