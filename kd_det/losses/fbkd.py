"""Feature-based distillation with attention and non-local relations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS

from ._functional import check_maps, full_precision, spatial_attention
from ._maps import BatchNorm


class NonLocal(nn.Module):
    r"""Non-local block with dot products: each position receives from all others, by their similarity.

    .. math::
        x_i + \mathrm{BN} \Big( W \frac{1}{N} \sum_j (\theta_i \cdot \phi_j) \, g_j \Big)

    The sum over j is formed first, as a matrix of channels by channels, so that no matrix of positions by positions
    appears. The weight of the batch norm starts at 0: at first the block passes its input on.

    Args:
        channels: C.
        reduction: Inner channels are C divided by this.
        maxpool_stride: phi and g are max-pooled once, with this window; 1: not at all.
    """

    def __init__(self, channels: int, reduction: int = 2, maxpool_stride: int = 1) -> None:
        super().__init__()
        inner = max(channels // reduction, 1)
        self.maxpool_stride = maxpool_stride
        self.theta, self.phi, self.g = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.conv_out = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn = BatchNorm(channels)
        nn.init.zeros_(self.bn.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Shape (B, C, H, W) to the same."""
        phi, g = self.phi(maps), self.g(maps)
        stride = [min(self.maxpool_stride, size) for size in maps.shape[2:]]  # a window larger than the map is the map
        if max(stride) > 1:
            phi, g = F.max_pool2d(phi, stride), F.max_pool2d(g, stride)
        phi, g = phi.flatten(2), g.flatten(2)
        theta = self.theta(maps)
        relation = torch.bmm(g, phi.transpose(1, 2)) / phi.shape[2]
        gathered = torch.bmm(relation, theta.flatten(2)).view_as(theta)
        return maps + self.bn(self.conv_out(gathered))


@MODELS.register_module()
class FBKDLoss(nn.Module):
    r"""Attention-guided and non-local distillation of one feature map.

    .. math::
        L_{feat} = w_f \big\lVert \sqrt{M} (\mathrm{conv}(s) - t) \big\rVert, \quad
        M = \tfrac{1}{2} (A(s) + A(t)), \quad
        A(x) = H W \, \mathrm{softmax}_p \big( \mathrm{mean}_c |x| / T \big)

    .. math::
        L_{channel} = w_a \lVert \mathrm{linear}(\mathrm{gap}(s)) - \mathrm{gap}(t) \rVert, \quad
        L_{spatial} = w_a \lVert \mathrm{conv}_{3 \times 3}(\mathrm{mean}_c s) - \mathrm{mean}_c t \rVert, \quad
        L_{nonlocal} = w_n \lVert \mathrm{conv}(N_s(s)) - N_t(t) \rVert

    Norms run over the whole batch and have the gradient 0 at 0. Both non-local blocks N are trained, also the
    teacher's; the masks M get no gradient. With ``sub_sample`` the blocks max-pool once, by ``maxpool_stride``; the
    published port does it by 2 as well before, so that its ``maxpool_stride=2`` is a 4 here.

    Reference: Zhang and Ma, "Improve Object Detection with Feature-based Knowledge Distillation: Towards Accurate and
    Efficient Detectors", ICLR 2021 (OpenReview uKhGRvM8QNH; it has no arXiv number). Port whose numbers it follows:
    mmrazor 1.0. Published for Faster R-CNN, levels 0 to 3: reduction 4, 4, 2, 2, maxpool_stride 8, 4, 2, 2.

    Extra memory: about six maps of B x C x H x W per side; never positions by positions.

    Shape:
        - student: (B, student_channels, H, W)
        - teacher: (B, teacher_channels, H, W)
        - result: dict of the scalars ``feat``, ``channel``, ``spatial``, ``nonlocal``

    Args:
        student_channels: Channels of the student's map.
        teacher_channels: Channels of the teacher's map.
        reduction: Factor between the channels and those inside the non-local blocks.
        sub_sample: Max-pool inside the non-local blocks.
        maxpool_stride: Window of that pooling.
        spatial_T: Temperature of the masks.
        mask_l2_weight: Weight of ``feat``.
        channel_weight: Weight of ``channel``.
        spatial_weight: Weight of ``spatial``.
        nonlocal_weight: Weight of ``nonlocal``.
        loss_weight: Factor of the whole.
    """

    same_channels = False

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        reduction: int = 2,
        sub_sample: bool = False,
        maxpool_stride: int = 2,
        spatial_T: float = 0.5,
        mask_l2_weight: float = 7e-5,
        channel_weight: float = 4e-3,
        spatial_weight: float = 4e-3,
        nonlocal_weight: float = 7e-5,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value in (('reduction', reduction), ('maxpool_stride', maxpool_stride)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f'FBKDLoss: {name}={value!r}, expected a whole number from 1 on.')
        self.student_channels, self.teacher_channels = student_channels, teacher_channels
        self.spatial_T, self.loss_weight = spatial_T, loss_weight
        self.weights = {
            'feat': mask_l2_weight,
            'channel': channel_weight,
            'spatial': spatial_weight,
            'nonlocal': nonlocal_weight,
        }
        stride = maxpool_stride if sub_sample else 1
        self.align = nn.Conv2d(student_channels, teacher_channels, 1)
        self.channel_align = nn.Linear(student_channels, teacher_channels)
        self.spatial_align = nn.Conv2d(1, 1, 3, padding=1)
        self.student_non_local = NonLocal(student_channels, reduction, stride)
        self.teacher_non_local = NonLocal(teacher_channels, reduction, stride)
        self.non_local_align = nn.Conv2d(student_channels, teacher_channels, 1)

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """Compute the loss.

        Args:
            student: Shape (B, student_channels, H, W).
            teacher: Shape (B, teacher_channels, H, W).

        Returns:
            Scalars ``feat``, ``channel``, ``spatial`` and ``nonlocal``, with their weights.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_maps('FBKDLoss', student, teacher, self.student_channels, self.teacher_channels)
        norm = torch.linalg.vector_norm
        root = self.mask(student.detach(), teacher).sqrt()
        spatial = self.spatial_align(student.mean(1, keepdim=True)) - teacher.mean(1, keepdim=True)
        related = self.non_local_align(self.student_non_local(student)) - self.teacher_non_local(teacher)
        losses = {
            'feat': norm((self.align(student) - teacher) * root),
            'channel': norm(self.channel_align(student.mean((2, 3))) - teacher.mean((2, 3))),
            'spatial': norm(spatial),
            'nonlocal': norm(related),
        }
        return {name: self.loss_weight * self.weights[name] * value for name, value in losses.items()}

    def mask(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The mean of the two spatial attentions, shape (B, 1, H, W)."""
        masks = [spatial_attention(maps, self.spatial_T) for maps in (student, teacher)]
        return (masks[0] + masks[1])[:, None] / 2
