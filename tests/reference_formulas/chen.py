"""Soft class targets and teacher-bounded boxes (Chen et al., NIPS 2017), and the MultiBox loss of both."""

from __future__ import annotations

import torch
from torch import Tensor

from ._plain import huber


def _weighted_kl(student: Tensor, teacher: Tensor, T: float, neg: float, pos: float, eps: float) -> Tensor:
    """Row by row, the background last: shape (N,)."""
    p_t, p_s = torch.softmax(teacher / T, 1) + eps, torch.softmax(student / T, 1) + eps
    weight = torch.full_like(p_t[0], pos)
    weight[-1] = neg
    return (weight * p_t * torch.log(p_t / p_s)).sum(1)


def soft_targets(
    student: Tensor, teacher: Tensor, labels: Tensor, T: float = 1.0, neg_weight: float = 1.5, pos_weight: float = 1.0
) -> Tensor:
    """Over the number of foreground rows."""
    rows = _weighted_kl(student, teacher, T, neg_weight, pos_weight, 0.0)
    return T**2 * rows.sum() / (labels != student.shape[1] - 1).sum().clamp(min=1)


def bounded_boxes(
    student: Tensor, teacher: Tensor, bbox_targets: Tensor, bbox_weights: Tensor, reg_m: float = 0.0
) -> Tensor:
    """Positive row after positive row: the student's error where it is larger than the teacher's."""
    total, number = 0.0, 0
    for s, t, target, weight in zip(student, teacher, bbox_targets, bbox_weights):
        if weight.max() > 0:
            own, bound = ((s - target) ** 2).sum(), ((t - target) ** 2).sum()
            number += 1
            if own + reg_m > bound:
                total = total + own
    return total / max(number, 1)


def multibox(
    student: dict[str, Tensor],
    teacher: dict[str, Tensor],
    loc_t: Tensor,
    conf_t: Tensor,
    neg_w: float = 1.5,
    pos_w: float = 1.0,
    Temp: float = 1.0,
    negatives_for_hard: int = 100,
) -> Tensor:
    """Image by image: positives, and the hardest negatives, three for each."""
    total, number = 0.0, max(int((conf_t != student['conf'].shape[2] - 1).sum()), 1)
    for i, labels in enumerate(conf_t):
        loc, conf = student['loc'][i], student['conf'][i]
        priors, classes = conf.shape
        positive = labels != classes - 1
        entropy = torch.logsumexp(conf, 1) - conf[torch.arange(priors, device=conf.device), labels]
        count = int(positive.sum())
        wanted = min(3 * count if count else negatives_for_hard, priors - 1)
        order = torch.where(positive, -float('inf'), entropy.detach()).argsort(descending=True)
        selected = positive.clone()
        selected[order[: min(wanted, priors - count)]] = True
        soft = _weighted_kl(conf, teacher['conf'][i], Temp, neg_w, pos_w, 1e-10)
        own, bound = (((x - loc_t[i]) ** 2).sum(1) for x in (loc, teacher['loc'][i]))
        total = total + 0.3 * Temp**2 * soft[selected].sum() + 0.7 * entropy[selected].sum()
        total = total + 0.5 * own[positive & (own > bound)].sum() + huber(loc - loc_t[i])[positive].sum()
    return total / number
