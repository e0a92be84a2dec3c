"""One-for-all distillation (arXiv 2310.19444)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def formula(student: Tensor, teacher: Tensor, labels: Tensor, eps: float = 1.0, temperature: float = 1.0) -> Tensor:
    """Cross entropy with the weights ``(p + one)^eps - one``."""
    one = F.one_hot(labels, student.shape[1])
    weight = (torch.softmax(teacher / temperature, 1) + one) ** eps - one
    return -(weight * torch.log(torch.softmax(student / temperature, 1))).sum() / len(student)
