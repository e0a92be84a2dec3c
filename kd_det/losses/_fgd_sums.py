"""The sums over a student's map that FGD needs, with few passes over memory.

Written out as one autograd function, since plain autograd would keep and move about ten temporaries of the size of the
map. Nothing of that size is stored beside the two maps themselves; the backward pass writes the gradient once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._fused import channel_blocks


class MapSums(NamedTuple):
    """What :func:`map_sums` returns (N = H W positions, d = student - teacher)."""

    weighted: Tensor  # (B, N)  sum_c attention_c d²
    squared: Tensor  # (B, N)  sum_c d²
    difference: Tensor  # (B, C)  sum_p d
    abs_spatial: Tensor  # (B, N)  mean_c |student|
    abs_channel: Tensor  # (B, C)  mean_p |student|
    context: Tensor  # (B, C)  sum_p softmax_p(w student + b) student


def map_sums(student: Tensor, teacher: Tensor, attention: Tensor, weight: Tensor, bias: Tensor) -> MapSums:
    """All sums over a pair of maps that FGD needs.

    Args:
        student: Shape (B, C, H, W).
        teacher: Shape (B, C, H, W), without gradient.
        attention: Weight of each channel, shape (B, C), without gradient.
        weight: The 1x1 convolution in front of the soft-max pooling, shape (1, C, 1, 1).
        bias: Its bias, shape (1,): shifts the soft-max, so its gradient is exactly 0.

    Returns:
        The sums, differentiable once with respect to ``student`` and ``weight``.
    """
    return MapSums(*_MapSums.apply(student.flatten(2), teacher.flatten(2), attention, weight.flatten(), bias))


class _MapSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student, teacher, attention, weight, bias):
        batch, channels, _ = student.shape
        both = torch.stack((attention, torch.ones_like(attention)), 1)
        sums = student.new_zeros(batch, 2, student.shape[2])
        logits = bias.to(student.dtype).expand(batch, 1, student.shape[2]).clone()
        abs_spatial = torch.zeros_like(sums[:, 0])
        difference, abs_channel = torch.empty_like(attention), torch.empty_like(attention)
        for at in channel_blocks(student):
            part = student[:, at]
            d = part - teacher[:, at]
            difference[:, at] = d.sum(2)
            sums.baddbmm_(both[:, :, at], d.square_())
            logits.baddbmm_(weight[at].expand(batch, 1, -1), part)
            torch.abs(part, out=d)
            abs_spatial += d.sum(1)
            abs_channel[:, at] = d.mean(2)
        pool = F.softmax(logits, dim=2)
        context = torch.bmm(student, pool.transpose(1, 2)).squeeze(2)
        ctx.save_for_backward(student, teacher, attention, weight, pool, bias)
        return sums[:, 0], sums[:, 1], difference, abs_spatial / channels, abs_channel, context

    @staticmethod
    @once_differentiable
    def backward(ctx, g_weighted, g_squared, g_difference, g_spatial, g_channel, g_context):
        student, teacher, attention, weight, pool, bias = ctx.saved_tensors
        batch, channels, positions = student.shape
        with torch.autocast(student.device.type, enabled=False):
            g_pool = torch.bmm(g_context[:, None], student)
            g_logits = pool * (g_pool - (pool * g_pool).sum(2, keepdim=True))
            # d loss / d student = d * (left2 @ right2) + sign * (spatial + channel) + left3 @ right3
            left2 = torch.stack((attention, torch.ones_like(attention)), 2)
            right2 = 2 * torch.stack((g_weighted, g_squared), 1)
            left3 = torch.stack((g_context, weight.expand(batch, -1), g_difference), 2)
            right3 = torch.cat((pool, g_logits, torch.ones_like(pool)), 1)
            g_spatial, g_channel = g_spatial[:, None] / channels, g_channel[:, :, None] / positions
            g_student = torch.empty_like(student) if ctx.needs_input_grad[0] else None
            g_weight = torch.empty_like(weight)
            for at in channel_blocks(student):
                part = student[:, at]
                g_weight[at] = torch.bmm(part, g_logits.transpose(1, 2)).sum((0, 2))
                if g_student is None:
                    continue
                out = part - teacher[:, at]
                out *= torch.bmm(left2[:, at], right2)
                out.addcmul_(part.sign(), g_spatial + g_channel[:, at])
                g_student[:, at] = out.baddbmm_(left3[:, at], right3)
        return g_student, None, None, g_weight, torch.zeros_like(bias)
