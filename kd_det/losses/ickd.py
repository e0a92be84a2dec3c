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

    Extra memory: one map of B x C_s x H x W, and matrices of B x C x C; the embedded map itself never appears.

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
        products = products_of(teacher.flatten(2))
        difference = F.normalize(self.embedded_products(student), dim=2) - F.normalize(products, dim=2)
        return self.loss_weight * difference.square().sum() / (teacher.shape[1] * teacher.shape[0])

    def embedded_products(self, student: Tensor) -> Tensor:
        """Products of the channels of ``embed(student)``, shape (B, C_t, C_t), without that map.

        A convolution 1x1 and batch norm are linear in the pixels, y = a (W x) + b, so that sums of products of y follow
        from those of x. Each channel of x is centred first, which changes nothing in y, and keeps rounding small.
        """
        conv, bn = self.embed.conv.weight.flatten(1), self.embed.bn
        centre = student.detach().mean((0, 2, 3))
        x = (student - centre[:, None, None]).flatten(2)
        pixels = x.shape[2]
        sums = x.sum(2) @ conv.T  # of W x, per image
        products = conv @ products_of(x) @ conv.T
        number = x.shape[0] * pixels
        if bn.training and number > 1:
            mean = sums.sum(0) / number
            variance = (products.diagonal(dim1=1, dim2=2).sum(0) / number - mean.square()).clamp(min=0)
            bn.track(mean + conv @ centre, variance * number / (number - 1))
        else:
            mean, variance = bn.running_mean - conv @ centre, bn.running_var
        a = bn.weight * torch.rsqrt(variance + bn.eps)
        b = bn.bias - a * mean
        mixed = (a * sums)[:, :, None] * b
        return a[:, None] * products * a + mixed + mixed.transpose(1, 2) + pixels * b[:, None] * b


def products_of(maps: Tensor) -> Tensor:
    """Products of the channels of maps (B, C, n): shape (B, C, C)."""
    gram = torch.bmm(maps, maps.detach().transpose(1, 2))
    # The gradient of the second factor, by way of the transposed matrix: saves a map.
    return gram + (gram.transpose(1, 2) - gram.detach().transpose(1, 2))
