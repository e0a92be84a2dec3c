"""Factor transfer (arXiv 1802.04977)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._plain import conv, unit


def formula(
    student: Tensor, teacher: Tensor, module: nn.Module, form: str = 'paper', loss_weight: float = 1.0
) -> Tensor:
    """Mean absolute difference of translated and paraphrased factors of unit length."""

    def encoded(x: Tensor, encoder: nn.Sequential) -> Tensor:
        for layer in (encoder.conv0, encoder.conv1, encoder.conv2):
            x = F.leaky_relu(conv(x, layer), 0.1)
        return x

    with torch.no_grad():
        factor_t = encoded(teacher, module.paraphraser.encoder)
    factors = [encoded(student, module.translator), factor_t]
    if form == 'attention':
        factors = [(x**2).mean(1) for x in factors]
    factor_s, factor_t = (unit(x.flatten(1), 1) for x in factors)
    return loss_weight * (factor_s - factor_t).abs().mean()
