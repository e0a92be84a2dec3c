"""Flow of the solution procedure (Yim et al., CVPR 2017)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def formula(student: list[Tensor], teacher: list[Tensor], loss_weight: float = 1.0) -> Tensor:
    """Mean products of the channels of neighbouring levels, written out: B x C x C x HW numbers."""

    def matrix(larger: Tensor, smaller: Tensor) -> Tensor:
        larger = F.adaptive_avg_pool2d(larger, smaller.shape[2:])
        return (smaller[:, :, None] * larger[:, None]).mean((3, 4))

    total = 0.0
    for i in range(len(student) - 1):
        difference = matrix(student[i], student[i + 1]) - matrix(teacher[i], teacher[i + 1])
        total = total + (difference**2).mean()
    return loss_weight * total
