"""Knowledge review (arXiv 2104.09044)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._plain import batch_norm, conv


def formula(
    student: list[Tensor], teacher: list[Tensor], module: nn.Module, mid_channel: int = 256, loss_weight: float = 1.0
) -> Tensor:
    """From the deepest level upwards: fusion, then the hierarchical context loss."""
    total, deeper = 0.0, None
    for abf, s, t in zip(module.abfs, student[::-1], teacher[::-1]):
        x = batch_norm(conv(s, abf.conv1[0]), abf.conv1[1])
        if deeper is not None:
            y = F.interpolate(deeper, x.shape[2:], mode='nearest')
            z = torch.sigmoid(conv(torch.cat((x, y), 1), abf.att_conv[0]))
            x = x * z[:, 0:1] + y * z[:, 1:2]
        deeper = x
        total = total + _hcl(batch_norm(conv(x, abf.conv2[0]), abf.conv2[1]), t)
    return loss_weight * total


def _hcl(output: Tensor, teacher: Tensor) -> Tensor:
    value, weight, used = ((output - teacher) ** 2).mean(), 1.0, 1.0
    for side in (4, 2, 1):
        if side < teacher.shape[2]:
            weight = weight / 2
            used = used + weight
            pooled = [F.adaptive_avg_pool2d(x, (side, side)) for x in (output, teacher)]
            value = value + weight * ((pooled[0] - pooled[1]) ** 2).mean()
    return value / used
