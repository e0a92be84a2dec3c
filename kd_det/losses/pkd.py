"""Distillation by the Pearson correlation of feature maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import full_precision
from ._fused import normalised_difference
from ._maps import check_pair


@MODELS.register_module()
class PKDLoss(nn.Module):
    r"""Pearson distillation of one feature map: it compares the channels after each was normalised.

    .. math::
        L = \frac{w}{2} \, \mathrm{mean} \big( (z(s) - z(t))^2 \big), \quad
        z(x)_c = \frac{x_c - \mathrm{mean}(x_c)}{\mathrm{std}(x_c) + \epsilon}

    Mean and (unbiased) standard deviation of a channel run over batch and positions jointly, so that scale and offset
    of the teacher do not matter: up to ``eps`` this is one minus the mean correlation, times ``(M - 1) / M`` for M
    values per channel. A channel that is constant gets a gradient of the size of one over ``eps``; raise ``eps`` where
    such channels appear. With a single value per channel the loss is 0.

    Reference: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
    Coefficient", NeurIPS 2022, arXiv 2207.02039. Published weights per level: 6 (two-stage), 10 (one-stage).

    Extra memory: blocks of a few channels; nothing is kept for the backward pass but the maps.

    Shape:
        - student: (B, C, H_s, W_s)
        - teacher: (B, C, H_t, W_t)
        - result: scalar

    Args:
        loss_weight: Factor of the whole.
        resize_stu: Where sizes differ, resize the student's map to the teacher's size (bilinearly, without aligned
            corners); False: the teacher's to the student's.
        eps: Added to the standard deviation.
    """

    same_channels = True

    def __init__(self, loss_weight: float = 1.0, resize_stu: bool = True, eps: float = 1e-6) -> None:
        super().__init__()
        self.loss_weight, self.resize_stu, self.eps = loss_weight, resize_stu, eps

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            student: Shape (B, C, H_s, W_s).
            teacher: Shape (B, C, H_t, W_t).

        Returns:
            Scalar.

        Raises:
            ValueError: If batches or channels differ.
        """
        check_pair('PKDLoss', student, teacher)
        if student.shape[1] != teacher.shape[1]:
            raise ValueError(
                'PKDLoss: student and teacher must have the same number of channels, found student '
                f'{tuple(student.shape)}, teacher {tuple(teacher.shape)}.'
            )
        if student.shape[2:] != teacher.shape[2:]:
            if self.resize_stu:
                student = F.interpolate(student, teacher.shape[2:], mode='bilinear', align_corners=False)
            else:
                teacher = F.interpolate(teacher, student.shape[2:], mode='bilinear', align_corners=False)
        if student.shape[0] * student.shape[2] * student.shape[3] < 2:
            return student.sum() * 0.0
        total = normalised_difference(student, teacher, self.eps).sum()
        return 0.5 * self.loss_weight * total / student.numel()
