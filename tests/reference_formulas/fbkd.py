"""Feature-based distillation with attention and non-local relations (ICLR 2021, OpenReview uKhGRvM8QNH)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._plain import batch_norm, conv


def formula(
    student: Tensor,
    teacher: Tensor,
    module: nn.Module,
    reduction: int = 2,
    sub_sample: bool = False,
    maxpool_stride: int = 2,
    spatial_T: float = 0.5,
    mask_l2_weight: float = 7e-5,
    channel_weight: float = 4e-3,
    spatial_weight: float = 4e-3,
    nonlocal_weight: float = 7e-5,
) -> Tensor:
    """Four norms; the non-local blocks with their matrix of positions by positions."""
    height, width = teacher.shape[2:]

    def attention(x: Tensor) -> Tensor:
        energy = x.abs().mean(1).flatten(1) / spatial_T
        return height * width * torch.softmax(energy, 1).view(-1, 1, height, width)

    def non_local(x: Tensor, block: nn.Module) -> Tensor:
        theta, phi, g = (conv(x, layer) for layer in (block.theta, block.phi, block.g))
        if sub_sample:
            phi, g = F.max_pool2d(phi, maxpool_stride), F.max_pool2d(g, maxpool_stride)
        theta, phi, g = theta.flatten(2), phi.flatten(2), g.flatten(2)
        relation = torch.bmm(theta.transpose(1, 2), phi) / phi.shape[2]  # B x HW x positions of phi
        gathered = torch.bmm(relation, g.transpose(1, 2)).transpose(1, 2).unflatten(2, (height, width))
        return x + batch_norm(conv(gathered, block.conv_out), block.bn)

    def norm(x: Tensor) -> Tensor:
        return (x**2).sum().sqrt()

    with torch.no_grad():
        mask = (attention(student) + attention(teacher)) / 2
    feat = (mask * (conv(student, module.align) - teacher) ** 2).sum().sqrt()
    channel = F.linear(student.mean((2, 3)), module.channel_align.weight, module.channel_align.bias)
    spatial = conv(student.mean(1, keepdim=True), module.spatial_align)
    related = conv(non_local(student, module.student_non_local), module.non_local_align)
    return (
        mask_l2_weight * feat
        + channel_weight * norm(channel - teacher.mean((2, 3)))
        + spatial_weight * norm(spatial - teacher.mean(1, keepdim=True))
        + nonlocal_weight * norm(related - non_local(teacher, module.teacher_non_local))
    )
