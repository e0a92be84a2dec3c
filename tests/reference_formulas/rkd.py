"""Relational knowledge distillation (arXiv 1904.05068)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._plain import huber, unit


def formula(
    student: Tensor,
    teacher: Tensor,
    w_d: float = 25.0,
    w_a: float = 50.0,
    max_angle_rows: int | None = None,
    loss_weight: float = 1.0,
) -> Tensor:
    """Distances and angles of the differences of all pairs, N x N x D numbers; ``max_angle_rows`` is not below N."""

    def distances(difference: Tensor) -> Tensor:
        squares = difference.pow(2).sum(2).clamp(min=1e-12)
        same = torch.eye(len(squares), dtype=torch.bool, device=squares.device)
        found = torch.where(same, 0.0, squares.sqrt())
        return found / found[found > 0].mean()

    def angles(difference: Tensor) -> Tensor:
        direction = unit(difference, 2)  # [i, j] from row i to row j
        return torch.bmm(direction, direction.transpose(1, 2))

    s, t = (x.flatten(1)[None] - x.flatten(1)[:, None] for x in (student, teacher))
    value = 0.0
    if w_d:
        value = value + w_d * huber(distances(s) - distances(t)).mean()
    if w_a:
        value = value + w_a * huber(angles(s) - angles(t)).mean()
    return loss_weight * value
