"""Focal and global distillation (arXiv 2111.11837)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ._plain import conv, paint, with_background


def formula(
    student: Tensor,
    teacher: Tensor,
    module: nn.Module,
    gt_bboxes: Sequence[Tensor],
    batch_input_shape: Sequence[int],
    temp: float = 0.5,
    alpha_fgd: float = 1e-3,
    beta_fgd: float = 5e-4,
    gamma_fgd: float = 5e-4,
    lambda_fgd: float = 5e-6,
) -> Tensor:
    """Term for term, each with its own copies of the maps; boxes are painted one after the other."""
    batch, channels, height, width = teacher.shape
    if module.align is not None:
        student = conv(student, module.align)

    def spatial(x: Tensor) -> Tensor:
        energy = x.abs().mean(1).view(batch, -1) / temp
        return height * width * torch.softmax(energy, 1).view(batch, 1, height, width)

    def channel(x: Tensor) -> Tensor:
        return channels * torch.softmax(x.abs().mean((2, 3)) / temp, 1)[:, :, None, None]

    def relation(x: Tensor, conv_mask: nn.Module, block: nn.Module) -> Tensor:
        weight = torch.softmax(conv(x, conv_mask).view(batch, -1), 1).view(batch, 1, height, width)
        context = (x * weight).sum((2, 3), keepdim=True)
        first, norm, _, second = block
        hidden = conv(context, first)
        mean = hidden.mean(1, keepdim=True)
        deviation = (((hidden - mean) ** 2).mean(1, keepdim=True) + norm.eps).sqrt()
        hidden = (hidden - mean) / deviation * norm.weight + norm.bias
        return x + conv(torch.relu(hidden), second)

    masks = with_background(paint(gt_bboxes, (height, width), batch_input_shape, teacher))
    fg, bg = (mask[:, None] for mask in masks)
    energy = (student - teacher) ** 2 * spatial(teacher) * channel(teacher)
    attention = (channel(student) - channel(teacher)).abs().sum() + (spatial(student) - spatial(teacher)).abs().sum()
    related_s = relation(student, module.conv_mask_s, module.channel_add_conv_s)
    related_t = relation(teacher, module.conv_mask_t, module.channel_add_conv_t)
    total = alpha_fgd * (energy * fg).sum() + beta_fgd * (energy * bg).sum() + gamma_fgd * attention
    return (total + lambda_fgd * ((related_s - related_t) ** 2).sum()) / batch
