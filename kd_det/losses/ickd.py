"""Inter-channel correlation distillation."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import check_maps, full_precision
from ._maps import BatchNorm


@MODELS.register_module()
class ICKDLoss(nn.Module):
    r"""Inter-channel correlation of one feature map: how similar are the channels of one image to one another?

    .. math::
        L = \frac{w}{B C_t} \sum \big( G(e(s)) - G(t) \big)^2, \quad
        G(x)_i = \frac{(x x^\top)_i}{\lVert (x x^\top)_i \rVert_2}, \quad
        e = \mathrm{BN} \circ \mathrm{conv}_{1 \times 1}

    with x as a matrix of channels by positions. The student always passes the embedding e, as in the authors' code.

    Reference: Liu et al., "Exploring Inter-Channel Correlation for Diversity-preserved Knowledge Distillation", ICCV
    2021, arXiv 2202.03680. Published weight: 2.5 (CIFAR).

    Extra memory: two maps of B x C_t x H x W for the embedding, and matrices of B x C_t x C_t.

    Shape:
        - student: (B, student_channels, H, W)
        - teacher: (B, teacher_channels, H, W)
        - result: scalar

    Args:
        student_channels: Channels of the student's map.
        teacher_channels: Channels of the teacher's map.
        loss_weight: Factor of the whole.
    """

    same_channels = False

    def __init__(self, student_channels: int, teacher_channels: int, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.student_channels, self.teacher_channels = student_channels, teacher_channels
        self.loss_weight = loss_weight
        conv = nn.Conv2d(student_channels, teacher_channels, 1, bias=False)
        self.embed = nn.Sequential(OrderedDict(conv=conv, bn=BatchNorm(teacher_channels)))

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            student: Shape (B, student_channels, H, W).
            teacher: Shape (B, teacher_channels, H, W).

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_maps('ICKDLoss', student, teacher, self.student_channels, self.teacher_channels)
        difference = self.correlation(self.embed(student)) - self.correlation(teacher)
        return self.loss_weight * difference.square().sum() / (teacher.shape[1] * teacher.shape[0])

    @staticmethod
    def correlation(maps: Tensor) -> Tensor:
        """Products of the channels, each row of unit length: shape (B, C, H, W) to (B, C, C)."""
        flat = maps.flatten(2)
        gram = torch.bmm(flat, flat.detach().transpose(1, 2))
        # The gradient of the second factor, by way of the transposed matrix: saves a map.
        gram = gram + (gram.transpose(1, 2) - gram.detach().transpose(1, 2))
        return F.normalize(gram, dim=2)
