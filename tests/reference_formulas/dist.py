"""Distillation from a stronger teacher (arXiv 2205.10536)."""

from __future__ import annotations

import torch
from torch import Tensor


def formula(
    student: Tensor, teacher: Tensor, beta: float = 1.0, gamma: float = 1.0, tau: float = 1.0, eps: float = 1e-8
) -> Tensor:
    """One minus the correlation of each row, and of each column, one after the other."""

    def correlation(a: Tensor, b: Tensor) -> Tensor:
        a, b = a - a.mean(), b - b.mean()
        return (a * b).sum() / ((a**2).sum().sqrt() * (b**2).sum().sqrt() + eps)

    p, q = torch.softmax(student / tau, 1), torch.softmax(teacher / tau, 1)
    rows = torch.stack([correlation(a, b) for a, b in zip(p, q)])
    columns = torch.stack([correlation(a, b) for a, b in zip(p.T, q.T)])
    return tau**2 * (beta * (1 - rows.mean()) + gamma * (1 - columns.mean()))
