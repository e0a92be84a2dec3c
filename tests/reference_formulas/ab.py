"""Activation boundaries (arXiv 1811.03233)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._plain import batch_norm, conv


def formula(student: list[Tensor], teacher: list[Tensor], module: nn.Module, margin: float = 1.0) -> Tensor:
    """Level by level: how far each neuron is from firing, or not, as the teacher's does, with a margin."""
    total = 0.0
    for i, (s, t) in enumerate(zip(student, teacher)):
        connector = module.connectors[i]
        if not isinstance(connector, nn.Identity):
            s = batch_norm(conv(s, connector.conv), connector.bn)
        fires, silent = (margin - s).clamp(min=0) ** 2, (margin + s).clamp(min=0) ** 2
        total = total + 2.0 ** (i - len(student) + 1) * torch.where(t > 0, fires, silent).sum() / len(t)
    return 3 / 1000 * total
