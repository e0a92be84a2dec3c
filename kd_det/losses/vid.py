"""Variational information distillation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS

from ._functional import full_precision
from ._fused import squared_error
from ._maps import check_pair, pool_to_smaller


@MODELS.register_module()
class VIDLoss(nn.Module):
    r"""Variational information distillation of one feature map.

    The student's map predicts the mean m of a Gaussian around the teacher's; the variance is learnt per channel. The
    loss is its negative log-likelihood without the constant, a bound on the mutual information, and may be negative:

    .. math::
        L = \frac{w}{2} \, \mathrm{mean} \Big( \frac{(m - t)^2}{v_c} + \log v_c \Big), \quad
        v_c = \mathrm{softplus}(\mathrm{log\_scale}_c) + \epsilon

    The regressor is conv 1x1, ReLU, conv 1x1, ReLU, conv 1x1, without biases. If the sizes differ, the larger map is
    first average-pooled to (h, w) of the smaller.

    Reference: Ahn et al., "Variational Information Distillation for Knowledge Transfer", CVPR 2019, arXiv 1904.05835.
    Published weight: 1.

    Extra memory: two maps of B x mid_channels x H x W and one of B x C_t x H x W.

    Shape:
        - student: (B, student_channels, H_s, W_s)
        - teacher: (B, teacher_channels, H_t, W_t)
        - result: scalar

    Args:
        student_channels: Channels of the student's map.
        teacher_channels: Channels of the teacher's map.
        mid_channels: Width of the regressor; None: ``teacher_channels``.
        init_pred_var: Variance at the start.
        eps: Added to the variance.
        loss_weight: Factor of the whole.
    """

    same_channels = False

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        mid_channels: int | None = None,
        init_pred_var: float = 5.0,
        eps: float = 1e-5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not init_pred_var > eps > 0:
            raise ConfigError(
                f'VIDLoss: init_pred_var={init_pred_var!r}, eps={eps!r}; expected init_pred_var > eps > 0.'
            )
        mid_channels = mid_channels or teacher_channels
        self.student_channels, self.teacher_channels = student_channels, teacher_channels
        self.eps, self.loss_weight = eps, loss_weight
        self.regressor = nn.Sequential(
            nn.Conv2d(student_channels, mid_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(mid_channels, mid_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(mid_channels, teacher_channels, 1, bias=False),
        )
        start = init_pred_var - eps
        start = start + math.log(-math.expm1(-start))  # the inverse of softplus, also for large values
        self.log_scale = nn.Parameter(torch.full((teacher_channels,), start))

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            student: Shape (B, student_channels, H_s, W_s).
            teacher: Shape (B, teacher_channels, H_t, W_t).

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_pair('VIDLoss', student, teacher, self.student_channels, self.teacher_channels)
        student, teacher = pool_to_smaller(student, teacher)
        variance = (F.softplus(self.log_scale) + self.eps).view(1, -1, 1, 1)
        rows = _rows_at_once(student)
        blocks = zip(student.split(rows, 2), teacher.split(rows, 2))
        total = sum(squared_error(self.regressor(s), t).sum(0) for s, t in blocks).view(1, -1, 1, 1)
        squares = total / (teacher.numel() // teacher.shape[1])
        return 0.5 * self.loss_weight * (squares / variance + variance.log()).mean()


def _rows_at_once(maps: Tensor) -> int:
    """On a CPU 4 MiB of float32: blocks above 32 MiB go back to the system, and each step pays for their pages anew."""
    batch, channels, height, width = maps.shape
    return max(1, 2**20 // max(1, batch * channels * width)) if maps.device.type == 'cpu' else max(1, height)
