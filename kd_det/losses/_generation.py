"""Two 3x3 convolutions against a map, in blocks of rows, with their gradients.

On a CPU the system takes blocks of memory above 32 MiB back as soon as they are free, and hands them out page by page:
on large maps that is a fifth of a step of plain autograd. Here nothing but the student's gradient is as large as a map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: Maps of more bytes than this are worked on in blocks.
LARGE = 2**25
#: Bytes of a block, and the fewest rows: each block computes two rows of the hidden map a second time.
BLOCK_BYTES, LEAST_ROWS = 2**24, 32


def works_in_blocks(generation: nn.Sequential, maps: Tensor) -> bool:
    """Whether :func:`generation_error` is for these maps, (B, C, H, W), and these layers."""
    return maps.device.type == 'cpu' and maps.numel() * maps.element_size() > LARGE and _is_plain(generation)


def _is_plain(generation: nn.Sequential) -> bool:
    """Convolution, ReLU, convolution, as :class:`MGDLoss` builds them, and nobody listens."""
    if type(generation) is not nn.Sequential or [type(x) for x in generation] != [nn.Conv2d, nn.ReLU, nn.Conv2d]:
        return False
    kinds = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')
    if any(getattr(layer, kind) for layer in generation.modules() for kind in kinds):
        return False
    found = {
        (x.kernel_size, x.padding, x.stride, x.dilation, x.groups, x.padding_mode, x.bias is None)
        for x in (generation[0], generation[2])
    }
    return found == {((3, 3), (1, 1), (1, 1), (1, 1), 1, 'zeros', False)}


def generation_error(generation: nn.Sequential, student: Tensor, mask: Tensor, teacher: Tensor) -> Tensor:
    """``sum (G(student * mask) - teacher)^2`` in blocks of rows, differentiable once.

    The gradients are computed along with the value, and only scaled in the backward pass.

    Args:
        generation: G, for which :func:`works_in_blocks` holds.
        student: Shape (B, C, H, W).
        mask: Shape (B, 1, H, W) or (B, C, 1, 1), without gradient.
        teacher: Shape (B, C, H, W), without gradient.

    Returns:
        Scalar.
    """
    weights = (x for layer in (generation[0], generation[2]) for x in (layer.weight, layer.bias))
    return _GenerationError.apply(torch.is_grad_enabled(), mask.expand_as(student), teacher, student, *weights)


class _GenerationError(torch.autograd.Function):
    @staticmethod
    def forward(ctx, learns, mask, teacher, student, *weights):
        wanted = [learns and wants for wants in ctx.needs_input_grad[3:]]
        gradients = [torch.zeros_like(x) if wants else None for x, wants in zip((student, *weights), wanted)]
        total = student.new_zeros(())
        row_bytes = student[0, :, 0].numel() * student.element_size()
        rows = max(LEAST_ROWS, BLOCK_BYTES // max(1, row_bytes))
        for image in range(len(student)):
            at = slice(image, image + 1)
            own = [None if gradients[0] is None else gradients[0][at], *gradients[1:]]
            for row in range(0, student.shape[2], rows):
                total += _block(row, row + rows, mask[at], teacher[at], student[at], weights, own)
        ctx.gradients = gradients
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return None, None, None, *(None if x is None else x * gradient for x in ctx.gradients)


def _block(
    first: int,
    end: int,
    mask: Tensor,
    teacher: Tensor,
    student: Tensor,
    weights: tuple[Tensor, ...],
    gradients: list[Tensor | None],
) -> Tensor:
    """The error of the rows from ``first`` up to ``end`` of one image; adds to the gradients that are not None."""
    weight_1, bias_1, weight_2, bias_2 = weights
    height = student.shape[2]
    end = min(end, height)
    low, high = max(0, first - 2), min(height, end + 2)
    # Two rows more than the block's on each side, and zeros where the map ends.
    masked = student.new_zeros(*student.shape[:2], end - first + 4, student.shape[3])
    inner = slice(low - first + 2, high - first + 2)
    torch.mul(student[:, :, low:high], mask[:, :, low:high], out=masked[:, :, inner])
    hidden = torch.conv2d(masked, weight_1, bias_1, padding=(0, 1)).relu_()
    if first == 0:
        hidden[:, :, 0] = 0  # the second convolution's padding
    if end == height:
        hidden[:, :, -1] = 0
    error = torch.conv2d(hidden, weight_2, bias_2, padding=(0, 1)).sub_(teacher[:, :, first:end])
    value = torch.linalg.vector_norm(error, dim=(2, 3)).square().sum()
    for_student, for_weight_1, for_bias_1, for_weight_2, for_bias_2 = (x is not None for x in gradients)
    deeper = for_student or for_weight_1 or for_bias_1
    if deeper or for_weight_2 or for_bias_2:
        slope, *found = _convolution_backward(error, hidden, weight_2, deeper, for_weight_2, for_bias_2)
        _add(gradients[3:], found)
    if deeper:
        torch.ops.aten.threshold_backward.grad_input(slope, hidden, 0, grad_input=slope)
        slope, *found = _convolution_backward(slope, masked, weight_1, for_student, for_weight_1, for_bias_1)
        _add(gradients[1:3], found)
    if for_student:
        gradients[0][:, :, low:high].addcmul_(slope[:, :, inner], mask[:, :, low:high], value=2)
    return value


def _convolution_backward(slope: Tensor, maps: Tensor, weight: Tensor, *wanted: bool) -> tuple[Tensor | None, ...]:
    """Gradients of a convolution's input, weight and bias; None where none is wanted."""
    return torch.ops.aten.convolution_backward(
        slope, maps, weight, [len(weight)], [1, 1], [0, 1], [1, 1], False, [0, 0], 1, wanted
    )


def _add(gradients: list[Tensor | None], found: list[Tensor | None]) -> None:
    for gradient, part in zip(gradients, found):
        if gradient is not None:
            gradient.add_(part, alpha=2)  # of the square
