"""Contrastive representation distillation (arXiv 1910.10699)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def formula(
    student: Tensor,
    teacher: Tensor,
    module: nn.Module,
    idx: Tensor,
    contrast_idx: Tensor,
    n_data: int,
    feat_dim: int = 128,
    nce_t: float = 0.07,
    nce_m: float = 0.5,
    eps: float = 1e-7,
    loss_weight: float = 1.0,
) -> Tensor:
    """Row by row against the memories; then each row's places in them move."""

    def embedded(x: Tensor, layer: nn.Module) -> Tensor:
        x = layer(x)
        return x / (x**2).sum(1, keepdim=True).sqrt()

    def contrast(anchor: Tensor, memory: Tensor, constant: Tensor) -> Tensor:
        rows = [torch.exp(memory[places] @ a / nce_t) for a, places in zip(anchor, contrast_idx)]
        if constant == 0:  # the first call
            constant.copy_(n_data * torch.stack(rows).mean().detach())
        total, c = 0.0, (contrast_idx.shape[1] - 1) / n_data
        for row in rows:
            x = row / constant
            total = total + torch.log(x[0] / (x[0] + c + eps)) + torch.log(c / (x[1:] + c + eps)).sum()
        return -total / len(rows)

    a = embedded(student, module.embed_s['linear'])
    b = embedded(teacher, module.embed_t['linear'])
    old_s, old_t = module.memory_v1.clone(), module.memory_v2.clone()
    value = contrast(a, old_t, module.Z_v1) + contrast(b, old_s, module.Z_v2)
    with torch.no_grad():
        for memory, rows in ((module.memory_v1, a), (module.memory_v2, b)):
            for place, row in zip(idx, rows):
                moved = nce_m * memory[place] + (1 - nce_m) * row
                memory[place] = moved / (moved**2).sum().sqrt()
    return loss_weight * value
