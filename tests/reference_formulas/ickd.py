"""Inter-channel correlation (arXiv 2202.03680)."""

from __future__ import annotations

from torch import Tensor, nn

from ._plain import batch_norm, conv, unit


def formula(student: Tensor, teacher: Tensor, module: nn.Module, loss_weight: float = 1.0) -> Tensor:
    """Products of all pairs of channels over the pixels, written out: B x C x C x HW numbers."""

    def products(x: Tensor) -> Tensor:
        x = x.flatten(2)
        return unit((x[:, :, None] * x[:, None]).sum(3), 2)

    embedded = batch_norm(conv(student, module.embed.conv), module.embed.bn)
    difference = products(embedded) - products(teacher)
    return loss_weight * (difference**2).sum() / (teacher.shape[1] * teacher.shape[0])
