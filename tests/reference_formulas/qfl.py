"""Quality focal loss against the teacher's scores (CrossKD, arXiv 2306.11369)."""

from __future__ import annotations

import torch
from torch import Tensor


def elements(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """The loss of each score, shape (N, K)."""
    p, q = torch.sigmoid(student), torch.sigmoid(teacher)
    entropy = -(q * torch.log(p) + (1 - q) * torch.log(1 - p))
    return entropy * (p - q).abs() ** beta


def formula(student: Tensor, teacher: Tensor, beta: float = 1.0, loss_weight: float = 1.0) -> Tensor:
    """The sum over the sum of the rows' highest teacher scores, at least 1."""
    divisor = torch.sigmoid(teacher).amax(1).sum().clamp(min=1)
    return loss_weight * elements(student, teacher, beta).sum() / divisor
