"""Focal and global distillation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.registry import MODELS

from ._fgd_sums import map_sums
from ._functional import (
    box_masks,
    channel_attention,
    check_boxes,
    check_maps,
    full_precision,
    mean_abs,
    scaled_softmax,
    spatial_attention,
)


@MODELS.register_module()
class FGDLoss(nn.Module):
    r"""Focal and global distillation of one feature map.

    Compares the maps cell by cell, weighted by the teacher's attention, apart on the ground-truth boxes and on the
    background (focal), compares the attention maps, and compares the maps after a global-context block (global):

    .. math::
        S(x) &= HW\,\mathrm{softmax}_p(\mathrm{mean}_c |x| / temp), \quad
        A(x) = C\,\mathrm{softmax}_c(\mathrm{mean}_p |x| / temp), \quad e = (s - t)^2 S_t A_t \\
        L &= \frac 1 B \Big[ \alpha \sum e M_{fg} + \beta \sum e M_{bg}
        + \gamma \big( \sum |A_s - A_t| + \sum |S_s - S_t| \big) + \lambda \sum (R_s(s) - R_t(t))^2 \Big] \\
        R(x) &= x + W_2\,\mathrm{relu}(\mathrm{LN}(W_1 \textstyle\sum_p \mathrm{softmax}_p(w x) x_p))

    ``M_fg`` is one over the area (in cells) of the smallest box that covers a cell, ``M_bg`` one over the number of
    cells that no box covers. Sums run over C, H and W, as in the authors' code, so their weights hold here. The
    context block of the teacher learns, too.

    Reference: Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022, arXiv 2111.11837.

    Extra memory: no copy of a map is kept for the backward pass, except the aligned student's; temporaries are chunks
    of a few channels, and B x ceil(n / 24) x H x W numbers for n boxes per image.

    Shape:
        - student: (B, student_channels, H, W)
        - teacher: (B, teacher_channels, H, W)
        - result: scalar

    Args:
        student_channels: Channels of the student's map.
        teacher_channels: Channels of the teacher's map. Where they differ, the student first passes a 1x1 convolution.
        temp: Temperature of both attentions.
        alpha_fgd: Weight of the foreground.
        beta_fgd: Weight of the background.
        gamma_fgd: Weight of the attention maps.
        lambda_fgd: Weight of the global relation.
        paper_masks: True puts boxes on the map by each image's own size, as the authors' code does: in a padded batch
            the boxes of smaller images are stretched. False: by the padded size, which is where the objects are.
        loss_weight: Factor of the whole.
    """

    same_channels = False

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        temp: float = 0.5,
        alpha_fgd: float = 1e-3,
        beta_fgd: float = 5e-4,
        gamma_fgd: float = 5e-4,
        lambda_fgd: float = 5e-6,
        paper_masks: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student_channels, self.teacher_channels = student_channels, teacher_channels
        self.temp = temp
        self.alpha_fgd, self.beta_fgd, self.gamma_fgd, self.lambda_fgd = alpha_fgd, beta_fgd, gamma_fgd, lambda_fgd
        self.paper_masks = paper_masks
        self.loss_weight = loss_weight
        differ = student_channels != teacher_channels
        self.align = nn.Conv2d(student_channels, teacher_channels, 1) if differ else None
        self.conv_mask_s = nn.Conv2d(teacher_channels, 1, 1)
        self.conv_mask_t = nn.Conv2d(teacher_channels, 1, 1)
        self.channel_add_conv_s = _context_block(teacher_channels)
        self.channel_add_conv_t = _context_block(teacher_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as the authors do: the context blocks add nothing, so the relation begins as a plain squared error."""
        for conv in (self.conv_mask_s, self.conv_mask_t):
            nn.init.kaiming_normal_(conv.weight, mode='fan_in', nonlinearity='relu')
            nn.init.zeros_(conv.bias)
        for block in (self.channel_add_conv_s, self.channel_add_conv_t):
            nn.init.zeros_(block[-1].weight)
            nn.init.zeros_(block[-1].bias)

    @full_precision
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        gt_bboxes: Sequence[Tensor],
        image_sizes: Sequence[Sequence[int]] | None = None,
        batch_input_shape: Sequence[int] | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            student: Shape (B, student_channels, H, W).
            teacher: Shape (B, teacher_channels, H, W).
            gt_bboxes: Per image (n, 4), x1 y1 x2 y2 in pixels of the network's input; n may be 0.
            image_sizes: (h, w) of each image without padding; only for ``paper_masks=True``.
            batch_input_shape: (h, w) of the padded batch; only for ``paper_masks=False``.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit, or the size that the masks need is missing.
        """
        parts = self.parts(student, teacher, gt_bboxes, image_sizes, batch_input_shape)
        return self.loss_weight * (
            self.alpha_fgd * parts['fg']
            + self.beta_fgd * parts['bg']
            + self.gamma_fgd * (parts['mask_channel'] + parts['mask_spatial'])
            + self.lambda_fgd * parts['relation']
        )

    @full_precision
    def parts(
        self,
        student: Tensor,
        teacher: Tensor,
        gt_bboxes: Sequence[Tensor],
        image_sizes: Sequence[Sequence[int]] | None = None,
        batch_input_shape: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """Parts without their weights: scalars ``fg``, ``bg``, ``mask_channel``, ``mask_spatial`` and ``relation``."""
        check_maps('FGDLoss', student, teacher, self.student_channels, self.teacher_channels)
        batch, _, *map_size = teacher.shape
        gt_bboxes = check_boxes('FGDLoss', gt_bboxes, batch)
        fg, bg = self.foreground_mask(gt_bboxes, tuple(map_size), image_sizes, batch_input_shape)
        if self.align is not None:
            student = self.align(student)
        with torch.no_grad():
            spatial_t, channel_t = (scaled_softmax(energy, self.temp) for energy in mean_abs(teacher))
            spatial_t = spatial_t.flatten(1)
            masks = (torch.stack((fg, bg)).to(teacher.dtype).flatten(2) * spatial_t).detach()
        sums = map_sums(student, teacher, channel_t, self.conv_mask_s.weight, self.conv_mask_s.bias)
        foreground, background = (sums.weighted * masks).sum((1, 2)) / batch
        spatial_s = scaled_softmax(sums.abs_spatial, self.temp)
        channel_s = scaled_softmax(sums.abs_channel, self.temp)
        # (s + a - t - b)² summed over the positions, where a and b, the contexts, are constant over them.
        shift = self.channel_add_conv_s(sums.context[:, :, None, None]) - self.channel_add_conv_t(
            self._context(teacher)
        )
        shift = shift.flatten(1)
        relation = sums.squared.sum() + (shift * (2 * sums.difference + spatial_t.shape[1] * shift)).sum()
        return dict(
            fg=foreground,
            bg=background,
            mask_channel=(channel_s - channel_t).abs().sum() / batch,
            mask_spatial=(spatial_s - spatial_t).abs().sum() / batch,
            relation=relation / batch,
        )

    def _context(self, teacher: Tensor) -> Tensor:
        """The teacher's map pooled by its own soft-max, shape (B, C, 1, 1)."""
        flat = teacher.flatten(2)
        logits = torch.matmul(self.conv_mask_t.weight.flatten(1), flat) + self.conv_mask_t.bias
        return torch.matmul(flat, F.softmax(logits, dim=2).transpose(1, 2))[..., None]

    @torch.no_grad()
    def foreground_mask(
        self,
        gt_bboxes: Sequence[Tensor],
        map_size: tuple[int, int],
        image_sizes: Sequence[Sequence[int]] | None = None,
        batch_input_shape: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The masks of foreground and background that the loss uses, also for pictures.

        Args:
            gt_bboxes: Per image (n, 4), in pixels of the network's input.
            map_size: (H, W) of the map.
            image_sizes: (h, w) of each image without padding; only for ``paper_masks=True``.
            batch_input_shape: (h, w) of the padded batch; only for ``paper_masks=False``.

        Returns:
            ``mask_fg`` and ``mask_bg``, each of shape (B, H, W).

        Raises:
            ValueError: If the size that the masks need is missing or of the wrong length.
        """
        gt_bboxes = check_boxes('FGDLoss', gt_bboxes, len(gt_bboxes))
        if self.paper_masks:
            sizes = image_sizes
            if sizes is None or len(sizes) != len(gt_bboxes):
                found = 'nothing' if sizes is None else f'{len(sizes)}'
                raise ValueError(
                    'FGDLoss: paper_masks=True needs image_sizes, (h, w) for each of '
                    f'{len(gt_bboxes)} images, found {found}.'
                )
        else:
            if batch_input_shape is None or len(batch_input_shape) < 2:
                raise ValueError(
                    'FGDLoss: paper_masks=False needs batch_input_shape, (h, w) of the padded batch, '
                    f'found {batch_input_shape}.'
                )
            sizes = [batch_input_shape] * len(gt_bboxes)
        return box_masks(gt_bboxes, tuple(map_size), sizes)

    def spatial_attention(self, maps: Tensor) -> Tensor:
        """Where a map of shape (B, C, H, W) looks: shape (B, H, W), mean 1 per image."""
        return spatial_attention(maps, self.temp)

    def channel_attention(self, maps: Tensor) -> Tensor:
        """Which channels of a map of shape (B, C, H, W) speak: shape (B, C), mean 1 per image."""
        return channel_attention(maps, self.temp)


def _context_block(channels: int) -> nn.Sequential:
    hidden = channels // 2
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
    )
