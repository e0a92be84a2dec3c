"""Sums over pairs of maps in one pass forward and one backward.

Plain autograd writes every step of a formula to memory as a map of its own, and keeps some. Here the maps are read in
blocks of a few channels that stay in the cache of a processor, nothing is kept but the maps themselves, and the
gradient is written once. All functions are differentiable once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._functional import channel_step


def channel_blocks(maps: Tensor) -> Iterator[slice]:
    """Slices of the second axis of (B, C, N), see :func:`channel_step`."""
    step = channel_step(maps)
    return (slice(c, c + step) for c in range(0, maps.shape[1], step))


# ---------------------------------------------------------------------------------------------- element by element


def channel_sums(value: Callable, slope: Callable, student: Tensor, teacher: Tensor, *columns: Tensor) -> Tensor:
    """The sum over the positions of a function of both maps, element by element.

    Args:
        value: From blocks of both, (B, c, N), and of the columns, (1, c, 1), to the values of the block.
        slope: From the same to the derivative with respect to the student's block.
        student: Shape (B, C, H, W).
        teacher: Shape (B, C, H, W), without gradient.
        *columns: One number per channel, shape (C,), without gradient.

    Returns:
        Shape (B, C).
    """
    columns = tuple(column.view(1, -1, 1) for column in columns)
    return _ChannelSums.apply(value, slope, student.flatten(2), teacher.flatten(2), *columns)


class _ChannelSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value, slope, student, teacher, *columns):
        ctx.slope = slope
        ctx.save_for_backward(student, teacher, *columns)
        sums = [
            value(student[:, at], teacher[:, at], *(column[:, at] for column in columns)).sum(2)
            for at in channel_blocks(student)
        ]
        return torch.cat(sums, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        student, teacher, *columns = ctx.saved_tensors
        result = torch.empty_like(student)
        for at in channel_blocks(student):
            found = ctx.slope(student[:, at], teacher[:, at], *(column[:, at] for column in columns))
            torch.mul(found, gradient[:, at, None], out=result[:, at])
        return None, None, result, None, *(None for _ in columns)


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """``sum_p (s - t)^2``: shapes (B, C, H, W) to (B, C)."""
    return channel_sums(
        lambda s, t: (s - t).square_(), lambda s, t: (s - t).mul_(2), *torch.broadcast_tensors(student, teacher)
    )


def position_means(maps: Tensor, power: float) -> Tensor:
    """``mean_c |x|^power``: shape (B, C, H, W) to (B, H W)."""
    return _PositionMeans.apply(maps.flatten(2), power)


class _PositionMeans(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps, power):
        ctx.save_for_backward(maps)
        ctx.power = power
        total = torch.zeros_like(maps[:, 0])
        for at in channel_blocks(maps):
            part = maps[:, at]
            total += (part.square() if power == 2 else part.abs().pow_(power)).sum(1)
        return total / maps.shape[1]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (maps,), power = ctx.saved_tensors, ctx.power
        result = torch.empty_like(maps)
        scale = (gradient * (power / maps.shape[1]))[:, None]
        for at in channel_blocks(maps):
            part = maps[:, at]
            if power == 2:
                torch.mul(part, scale, out=result[:, at])
            else:
                slope = torch.where(part == 0, 0, part.sign() * part.abs().pow_(power - 1))
                torch.mul(slope, scale, out=result[:, at])
        return result, None


# --------------------------------------------------------------------------------------- distributions, correlations


def position_divergence(student: Tensor, teacher: Tensor, tau: float = 1.0, ignored: Tensor | None = None) -> Tensor:
    """Divergence of the distributions ``softmax_p(x / tau)`` of each channel, teacher first.

    Args:
        student: Shape (B, C, N).
        teacher: Shape (B, C, N); gets a gradient, too, if it asks for one.
        tau: Temperature.
        ignored: True where a position takes no part, shape (B, 1, N).

    Returns:
        Shape (B, C), without a factor of the temperature.
    """
    return _Divergence.apply(student, teacher, float(tau), ignored)


class _Divergence(torch.autograd.Function):
    @staticmethod
    def _scaled(maps: Tensor, tau: float, ignored: Tensor | None) -> Tensor:
        maps = maps if tau == 1 else maps / tau
        return maps if ignored is None else maps.masked_fill(ignored, -float('inf'))

    @staticmethod
    def _difference(scaled_s: Tensor, scaled_t: Tensor, p_t: Tensor) -> Tensor:
        """``log p_t - log p_s``, 0 where the teacher has no probability."""
        difference = F.log_softmax(scaled_t, 2).sub_(F.log_softmax(scaled_s, 2))
        # masked_fill by p_t <= 0 in one pass, a seventh of the time on a CPU
        return torch.ops.aten.threshold_backward(difference, p_t, 0)

    @staticmethod
    def forward(ctx, student, teacher, tau, ignored):
        ctx.tau = tau
        ctx.save_for_backward(student, teacher, ignored)
        found = []
        for at in channel_blocks(student):
            scaled_s, scaled_t = (_Divergence._scaled(x[:, at], tau, ignored) for x in (student, teacher))
            p_t = F.softmax(scaled_t, 2)
            found.append(_Divergence._difference(scaled_s, scaled_t, p_t).mul_(p_t).sum(2))
        value = torch.cat(found, 1)
        if ctx.needs_input_grad[1]:
            ctx.value = value.detach().clone()
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (student, teacher, ignored), tau = ctx.saved_tensors, ctx.tau
        scale = (gradient / tau)[:, :, None]
        for_student, for_teacher = (
            torch.empty_like(x) if n else None for x, n in zip((student, teacher), ctx.needs_input_grad)
        )
        for at in channel_blocks(student):
            scaled_s, scaled_t = (_Divergence._scaled(x[:, at], tau, ignored) for x in (student, teacher))
            p_t = F.softmax(scaled_t, 2)
            if for_student is not None:
                torch.mul(F.softmax(scaled_s, 2).sub_(p_t), scale[:, at], out=for_student[:, at])
            if for_teacher is not None:
                difference = _Divergence._difference(scaled_s, scaled_t, p_t)
                slope = p_t.mul_(difference.sub_(ctx.value[:, at, None]))
                torch.mul(slope, scale[:, at], out=for_teacher[:, at])
        return for_student, for_teacher, None, None


def normalised_difference(student: Tensor, teacher: Tensor, eps: float) -> Tensor:
    """``sum (z(s) - z(t))^2`` over batch and positions, with ``z(x) = (x - mean) / (std + eps)`` of each channel.

    Args:
        student: Shape (B, C, H, W), at least two values per channel.
        teacher: Shape (B, C, H, W), without gradient.
        eps: Added to the (unbiased) standard deviations.

    Returns:
        Shape (C,).
    """
    return _NormalisedDifference.apply(student.flatten(2), teacher.flatten(2), eps)


class _NormalisedDifference(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student, teacher, eps):
        number = student.shape[0] * student.shape[2]
        found, saved = [], []
        for at in channel_blocks(student):
            centred, means, inverse, deviations = [], [], [], []
            for x in (student[:, at], teacher[:, at]):
                mean = x.mean((0, 2), keepdim=True)
                centred.append(x - mean)
                means.append(mean)
                deviations.append(centred[-1].square().sum((0, 2), keepdim=True).div_(number - 1).sqrt_())
                inverse.append(1 / (deviations[-1] + eps))
            difference = (centred[0] * inverse[0]).sub_(centred[1].mul_(inverse[1]))
            product = (difference * centred[0]).sum((0, 2), keepdim=True)
            # By how much the student's own deviation changes its share; at deviation 0, by nothing.
            constant = deviations[0] == 0
            own = product * inverse[0] ** 2 / ((number - 1) * deviations[0].masked_fill(constant, 1))
            saved.append(torch.cat([*means, *inverse, own.masked_fill_(constant, 0)]))
            found.append(difference.square_().sum((0, 2)))
        ctx.save_for_backward(student, teacher, torch.cat(saved, 1))
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        student, teacher, saved = ctx.saved_tensors
        mean_s, mean_t, inverse_s, inverse_t, own = saved[:, None].unbind(0)
        factor = 2 * gradient[None, :, None]
        for_s, for_t = factor * (inverse_s**2 - own), factor * inverse_s * inverse_t
        result = torch.empty_like(student)
        for at in channel_blocks(student):
            out = torch.sub(student[:, at], mean_s[:, at], out=result[:, at])
            out.mul_(for_s[:, at])
            out.sub_((teacher[:, at] - mean_t[:, at]).mul_(for_t[:, at]))
        return result, None, None
