"""Attention transfer (arXiv 1612.03928)."""

from __future__ import annotations

from torch import Tensor

from ._plain import unit


def formula(student: Tensor, teacher: Tensor, p: float = 2, loss_weight: float = 1.0) -> Tensor:
    """Mean squared difference of the attentions, of unit length over the positions."""

    def attention(x: Tensor) -> Tensor:
        return unit((x.abs() ** p).mean(1).flatten(1), 1)

    return loss_weight * ((attention(student) - attention(teacher)) ** 2).mean()
