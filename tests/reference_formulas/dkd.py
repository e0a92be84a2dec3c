"""Decoupled knowledge distillation (arXiv 2203.08679)."""

from __future__ import annotations

import torch
from torch import Tensor


def formula(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float = 1.0, beta: float = 0.25, temperature: float = 1.0
) -> Tensor:
    """Row by row: the true class against the rest, and the rest among themselves."""
    target, rest = 0.0, 0.0
    for s, t, label in zip(student / temperature, teacher / temperature, labels):
        others = torch.arange(len(s), device=s.device) != label
        p_s, p_t = torch.softmax(s, 0), torch.softmax(t, 0)
        pair_s = torch.stack((p_s[label], p_s[others].sum()))
        pair_t = torch.stack((p_t[label], p_t[others].sum()))
        target = target + (pair_t * torch.log(pair_t / pair_s)).sum()
        p_s, p_t = torch.softmax(s[others], 0), torch.softmax(t[others], 0)
        rest = rest + (p_t * torch.log(p_t / p_s)).sum()
    return temperature**2 * (alpha * target + beta * rest) / len(student)
