"""Localisation distillation (arXiv 2102.12252)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._plain import kl_rows


def formula(
    student: Tensor,
    teacher: Tensor,
    pos_inds: Tensor,
    vlr_inds: Tensor,
    vlr_value: Tensor,
    cls_student: Tensor,
    cls_teacher: Tensor,
    reg_max: int = 16,
    ld_T: float = 10.0,
    ld_weight: float = 0.25,
    vlr_T: float = 10.0,
    vlr_weight: float = 0.25,
    kd_T: float = 2.0,
    kd_weight: float = 10.0,
) -> Tensor:
    """Anchor by anchor, side by side."""

    def anchors(maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1).flatten(0, 2)

    def sides(anchor: Tensor, T: float) -> Tensor:
        bins = reg_max + 1
        s, t = (anchors(x)[anchor].view(4, bins) for x in (student, teacher))
        return T**2 * kl_rows(s, t, T).sum() / bins

    scores_s, scores_t = anchors(cls_student)[pos_inds], anchors(cls_teacher)[pos_inds]
    total = kd_weight * kd_T**2 * (kl_rows(scores_s, scores_t, kd_T) / scores_s.shape[1]).mean()
    for anchor, scores in zip(pos_inds, scores_s):
        total = total + ld_weight / 4 * torch.sigmoid(scores).max().detach() * sides(anchor, ld_T)
    for anchor, value in zip(vlr_inds, vlr_value):
        total = total + vlr_weight / 16 * value * sides(anchor, vlr_T)
    return total
