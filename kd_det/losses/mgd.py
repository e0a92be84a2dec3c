"""Masked generative distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean
from kd_det.registry import MODELS

from ._functional import check_maps, full_precision, shape_of
from ._fused import squared_error
from ._generation import generation_error, works_in_blocks


@MODELS.register_module()
class MGDLoss(nn.Module):
    r"""Masked generative distillation of one feature map.

    Erases a random share of the student's map and lets two convolutions generate the teacher's whole map from the rest:

    .. math::
        L = \frac{\alpha}{B} \sum \big( G(M \cdot \mathrm{align}(s)) - t \big)^2, \quad
        G = \mathrm{conv}_{3 \times 3} \circ \mathrm{relu} \circ \mathrm{conv}_{3 \times 3}

    ``M`` is 0 or 1, drawn anew in each call on the map's device; what is left is not scaled up. The sum runs over C,
    H and W, as in the authors' code, so their weights hold here.

    Reference: Yang et al., "Masked Generative Distillation", ECCV 2022, arXiv 2205.01529.

    Extra memory: three maps of B x teacher_channels x H x W for the backward pass (masked input, hidden layer,
    what is generated). On a CPU, maps above 32 MiB are worked on in blocks of rows, with their gradients in the forward
    pass; then it is the student's gradient, twice, and some blocks.

    Shape:
        - student: (B, student_channels, H, W)
        - teacher: (B, teacher_channels, H, W)
        - result: scalar

    Args:
        student_channels: Channels of the student's map.
        teacher_channels: Channels of the teacher's map. Where they differ, the student first passes a 1x1 convolution.
        alpha_mgd: Weight.
        lambda_mgd: Share that is erased, from 0 to 1.
        mask_type: 'spatial' erases positions, in all channels alike; 'channel' erases whole channels.
        loss_weight: Factor of the whole.
    """

    same_channels = False

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        alpha_mgd: float = 2e-5,
        lambda_mgd: float = 0.65,
        mask_type: str = 'spatial',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if mask_type not in ('spatial', 'channel'):
            hint = did_you_mean(str(mask_type), ('spatial', 'channel'))
            raise ConfigError(f"MGDLoss: mask_type={mask_type!r}, expected 'spatial' or 'channel'.{hint}")
        if not 0 <= lambda_mgd <= 1:
            raise ConfigError(f'MGDLoss: lambda_mgd={lambda_mgd!r}, expected a share from 0 to 1.')
        self.student_channels, self.teacher_channels = student_channels, teacher_channels
        self.alpha_mgd, self.lambda_mgd, self.mask_type = alpha_mgd, lambda_mgd, mask_type
        self.loss_weight = loss_weight
        differ = student_channels != teacher_channels
        self.align = nn.Conv2d(student_channels, teacher_channels, 1) if differ else None
        self.generation = nn.Sequential(
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1),
        )

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            student: Shape (B, student_channels, H, W).
            teacher: Shape (B, teacher_channels, H, W).
            uniform: The random draw from [0, 1), shape (B, 1, H, W) ('spatial') or (B, teacher_channels, 1, 1)
                ('channel'); None draws it.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_maps('MGDLoss', student, teacher, self.student_channels, self.teacher_channels)
        if self.align is not None:
            student = self.align(student)
        mask = self.mask(teacher, uniform)
        if works_in_blocks(self.generation, student):
            error = generation_error(self.generation, student, mask, teacher)
        else:
            error = squared_error(self.generation(student * mask), teacher).sum()
        return self.loss_weight * self.alpha_mgd * error / teacher.shape[0]

    def mask(self, maps: Tensor, uniform: Tensor | None = None) -> Tensor:
        """What is kept (1) and erased (0) of a map of shape (B, C, H, W); the shape is that of ``uniform``."""
        batch, channels, height, width = maps.shape
        shape = (batch, 1, height, width) if self.mask_type == 'spatial' else (batch, channels, 1, 1)
        if uniform is None:
            uniform = torch.rand(shape, device=maps.device, dtype=maps.dtype)
        elif tuple(uniform.shape) != shape:
            raise ValueError(f'MGDLoss: uniform must have shape {shape}, found {shape_of(uniform)}.')
        # The two published variants draw the line at opposite ends of the unit interval.
        kept = uniform <= 1 - self.lambda_mgd if self.mask_type == 'spatial' else uniform >= self.lambda_mgd
        return kept.to(maps.dtype)
