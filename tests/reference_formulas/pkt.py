"""Probabilistic knowledge transfer (arXiv 1803.10837)."""

from __future__ import annotations

import torch
from torch import Tensor


def formula(student: Tensor, teacher: Tensor, eps: float = 1e-7, loss_weight: float = 1.0) -> Tensor:
    """Cosines of all pairs as probabilities, written out: N x N x D numbers."""

    def probabilities(x: Tensor) -> Tensor:
        x = x.flatten(1)
        x = x / ((x**2).sum(1, keepdim=True).sqrt() + eps)
        similarity = ((x[:, None] * x[None]).sum(2) + 1) / 2
        return similarity / similarity.sum(1, keepdim=True)

    s, t = probabilities(student), probabilities(teacher)
    return loss_weight * (t * torch.log((t + eps) / (s + eps))).mean()
