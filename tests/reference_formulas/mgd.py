"""Masked generative distillation (arXiv 2205.01529)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._plain import conv


def formula(
    student: Tensor,
    teacher: Tensor,
    module: nn.Module,
    uniform: Tensor,
    alpha_mgd: float = 2e-5,
    lambda_mgd: float = 0.65,
    mask_type: str = 'spatial',
) -> Tensor:
    """Two convolutions generate the teacher's map from what ``uniform`` leaves of the student's."""
    if module.align is not None:
        student = conv(student, module.align)
    erased = uniform > 1 - lambda_mgd if mask_type == 'spatial' else uniform < lambda_mgd
    first, _, second = module.generation
    generated = conv(torch.relu(conv(torch.where(erased, 0.0, student), first)), second)
    return alpha_mgd * ((generated - teacher) ** 2).sum() / len(teacher)
