"""Distillation by Pearson's correlation (arXiv 2207.02039)."""

from __future__ import annotations

from torch import Tensor


def formula(student: Tensor, teacher: Tensor, eps: float = 1e-6, loss_weight: float = 1.0) -> Tensor:
    """Half the mean squared difference of both maps, each channel normalised over batch and positions."""

    def normalised(x: Tensor) -> Tensor:
        return (x - x.mean((0, 2, 3), keepdim=True)) / (x.std((0, 2, 3), keepdim=True) + eps)

    return loss_weight * 0.5 * ((normalised(student) - normalised(teacher)) ** 2).mean()
