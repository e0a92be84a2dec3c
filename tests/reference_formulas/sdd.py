"""Scaled decoupled distillation (arXiv 2403.13512)."""

from __future__ import annotations

from torch import Tensor

from ._plain import kl_rows


def formula(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 4.0, weight_complementary: float = 2.0
) -> Tensor:
    """Region after region, those that contradict the whole with their weight."""
    rows, _, regions = student.shape
    right = teacher[:, :, 0].argmax(1) == labels
    total = 0.0
    for r in range(regions):
        contradicts = (teacher[:, :, r].argmax(1) == labels) != right
        weight = 1 + (weight_complementary - 1) * contradicts
        total = total + (weight * kl_rows(student[:, :, r], teacher[:, :, r], temperature)).sum()
    return temperature**2 * total / (rows * regions)
