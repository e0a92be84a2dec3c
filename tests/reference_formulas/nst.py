"""Neuron selectivity transfer (arXiv 1707.01219)."""

from __future__ import annotations

from torch import Tensor

from ._plain import unit


def formula(student: Tensor, teacher: Tensor, loss_weight: float = 1.0) -> Tensor:
    """``M(t, t) + M(s, s) - 2 M(s, t)``, with each product of two channels written out: B x C x C x HW numbers."""
    s, t = unit(student.flatten(2), 2), unit(teacher.flatten(2), 2)

    def mean(a: Tensor, b: Tensor) -> Tensor:
        return ((a[:, :, None] * b[:, None]).sum(3) ** 2).mean()

    return loss_weight * (mean(t, t) + mean(s, s) - 2 * mean(s, t))
