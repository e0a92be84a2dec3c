"""Similarity-preserving distillation (arXiv 1907.09682)."""

from __future__ import annotations

from torch import Tensor

from ._plain import unit


def formula(student: Tensor, teacher: Tensor, loss_weight: float = 1.0) -> Tensor:
    """Scalar products of all pairs of rows, written out: N x N x D numbers."""

    def similarities(x: Tensor) -> Tensor:
        x = x.flatten(1)
        return unit((x[:, None] * x[None]).sum(2), 1)

    difference = similarities(student) - similarities(teacher)
    return loss_weight * (difference**2).sum() / len(student) ** 2
