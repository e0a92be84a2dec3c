"""Hints."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean
from kd_det.registry import MODELS

from ._functional import check_maps, full_precision
from ._fused import squared_error
from ._maps import ConvReg, check_pair

_REGRESSORS = ('conv1x1', 'conv_bn_relu')


@MODELS.register_module()
class FitNetLoss(nn.Module):
    r"""Hint learning on one feature map: the student's map, regressed, equals the teacher's.

    .. math::
        L = w \, \mathrm{mean} \big( (r(s) - t)^2 \big)

    For the signed maps of a pyramid, r is a 1x1 convolution where channels differ, and nothing where they do not.
    ``regressor='conv_bn_relu'`` always puts a convolution that fits the sizes, batch norm and ReLU, for targets behind
    a ReLU.

    Reference: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550. Published weight of the
    mean: 100 (CIFAR).

    Extra memory: blocks of a few channels; with a regressor its output, B x C_t x H x W, with 'conv_bn_relu' three.

    Shape:
        - student: (B, student_channels, H_s, W_s)
        - teacher: (B, teacher_channels, H_t, W_t); equal sizes unless the regressor was built for others
        - result: scalar

    Args:
        student_channels: Channels of the student's map; None: as the teacher's, no regressor.
        teacher_channels: Channels of the teacher's map.
        regressor: 'conv1x1' or 'conv_bn_relu'.
        student_size: (h, w) of the student's maps, for 'conv_bn_relu' where the sizes differ.
        teacher_size: (h, w) of the teacher's maps, likewise.
        loss_weight: Factor of the whole.
    """

    same_channels = False

    def __init__(
        self,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        regressor: str = 'conv1x1',
        student_size: Sequence[int] | None = None,
        teacher_size: Sequence[int] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if regressor not in _REGRESSORS:
            hint = did_you_mean(str(regressor), _REGRESSORS)
            raise ConfigError(f"FitNetLoss: regressor={regressor!r}, expected 'conv1x1' or 'conv_bn_relu'.{hint}")
        if (student_channels is None) != (teacher_channels is None) or (
            student_channels is None and regressor != 'conv1x1'
        ):
            raise ConfigError(
                f'FitNetLoss: student_channels={student_channels!r}, teacher_channels={teacher_channels!r}; expected '
                'both, or neither and no regressor.'
            )
        self.student_channels, self.teacher_channels = student_channels, teacher_channels
        self.loss_weight = loss_weight
        self.align = None
        if regressor == 'conv_bn_relu':
            self.align = ConvReg(student_channels, teacher_channels, student_size, teacher_size)
        elif student_channels != teacher_channels:
            self.align = nn.Conv2d(student_channels, teacher_channels, 1)

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
        check_pair('FitNetLoss', student, teacher, self.student_channels, self.teacher_channels)
        if self.align is not None:
            student = self.align(student)
        check_maps('FitNetLoss', student, teacher)
        return self.loss_weight * squared_error(student, teacher).sum() / teacher.numel()
