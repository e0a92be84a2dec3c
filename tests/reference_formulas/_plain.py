"""The conventions of the formulas: soft targets, unit vectors, smooth L1, batch norm, box masks. For reading."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def kl_rows(student: Tensor, teacher: Tensor, T: float | Tensor = 1.0) -> Tensor:
    """``KL(t, s; T)`` of each row of logits (N, K), teacher first: shape (N,)."""
    p_t = torch.softmax(teacher / T, 1)
    return (p_t * (torch.log_softmax(teacher / T, 1) - torch.log_softmax(student / T, 1))).sum(1)


def unit(x: Tensor, dim: int) -> Tensor:
    """``x`` over its L2 norm along ``dim``; a vector of zeros stays one, without gradient."""
    squares = (x * x).sum(dim, keepdim=True)
    empty = squares == 0
    return torch.where(empty, 0.0, x / torch.where(empty, 1.0, squares).sqrt())


def huber(difference: Tensor) -> Tensor:
    """Smooth L1 with beta 1, element by element."""
    size = difference.abs()
    return torch.where(size < 1, 0.5 * difference**2, size - 0.5)


def z_scores(logits: Tensor) -> Tensor:
    """Each row of (N, K) less its mean, over its unbiased deviation."""
    return (logits - logits.mean(1, keepdim=True)) / (1e-7 + logits.std(1, keepdim=True))


def conv(maps: Tensor, layer: nn.Conv2d) -> Tensor:
    """A convolution with the weights of ``layer``."""
    return F.conv2d(maps, layer.weight, layer.bias, layer.stride, layer.padding)


def batch_norm(maps: Tensor, layer: nn.Module) -> Tensor:
    """Batch statistics, biased variance, the weights of ``layer``."""
    mean = maps.mean((0, 2, 3), keepdim=True)
    variance = ((maps - mean) ** 2).mean((0, 2, 3), keepdim=True)
    scaled = (maps - mean) / (variance + layer.eps).sqrt()
    return scaled * layer.weight[None, :, None, None] + layer.bias[None, :, None, None]


def with_background(foreground: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Foreground masks (H, W), one per image, and the background of each, which sums to 1."""
    background = []
    for mask in foreground:
        empty = (mask == 0).to(mask.dtype)
        background.append(empty / empty.sum() if empty.any() else empty)
    return torch.stack(foreground), torch.stack(background)


def paint(boxes: list[Tensor], map_size: tuple[int, int], image_size: tuple[int, int], like: Tensor) -> list[Tensor]:
    """Per image the mask of its boxes, one box after the other: one over the cells of the smallest that covers."""
    (height, width), (image_h, image_w) = map_size, image_size
    masks = []
    for of_image in boxes:
        mask = like.new_zeros(height, width)
        for box in of_image:
            x1, x2 = int(torch.floor(box[0] / image_w * width)), int(torch.ceil(box[2] / image_w * width))
            y1, y2 = int(torch.floor(box[1] / image_h * height)), int(torch.ceil(box[3] / image_h * height))
            weight = 1 / ((x2 - x1 + 1) * (y2 - y1 + 1))
            cells = mask[max(y1, 0) : y2 + 1, max(x1, 0) : x2 + 1]
            cells.clamp_(min=weight)
        masks.append(mask)
    return masks
