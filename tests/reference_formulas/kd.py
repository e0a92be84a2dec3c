"""Soft targets (arXiv 1503.02531), at a fixed or a learnt temperature, of logits as they are or standardised."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._plain import kl_rows, z_scores


def formula(
    student: Tensor, teacher: Tensor, T: float = 4.0, standardize: bool = False, loss_weight: float = 1.0
) -> Tensor:
    """T² times the mean divergence of the rows."""
    if standardize:
        student, teacher = z_scores(student), z_scores(teacher)
    return loss_weight * T**2 * kl_rows(student, teacher, T).sum() / len(student)


def learnt(student: Tensor, teacher: Tensor, module: nn.Module, T: dict, loss_weight: float = 1.0) -> Tensor:
    """At the temperature of a :class:`CurriculumTemperature`, whose gradient is scaled by its strength."""
    theta = module.T.global_T
    temperature = T['t_start'] + T['t_end'] * torch.sigmoid(theta)
    temperature = temperature.detach() + module.T.strength() * (temperature - temperature.detach())
    return loss_weight * (temperature**2 * kl_rows(student, teacher, temperature)).mean()


def sigmoid(
    student: Tensor, teacher: Tensor, T: float = 4.0, use_sigmoid: bool = True, loss_weight: float = 1.0
) -> Tensor:
    """Class by class, two outcomes each; over the sum of the rows' highest teacher scores, at least 1."""
    p, q = torch.sigmoid(teacher / T), torch.sigmoid(student / T)
    rows = (p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))).sum(1)
    return loss_weight * T**2 * rows.sum() / torch.sigmoid(teacher).amax(1).sum().clamp(min=1)
