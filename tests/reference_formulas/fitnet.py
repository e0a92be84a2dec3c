"""Hints (arXiv 1412.6550)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._plain import batch_norm, conv


def formula(student: Tensor, teacher: Tensor, module: nn.Module, regressor: str = 'conv1x1') -> Tensor:
    """Mean squared difference of the teacher's map and the student's, regressed."""
    if regressor == 'conv_bn_relu':
        student = torch.relu(batch_norm(conv(student, module.align.conv), module.align.bn))
    elif module.align is not None:
        student = conv(student, module.align)
    return ((student - teacher) ** 2).mean()
