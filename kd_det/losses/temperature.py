"""Temperatures: a fixed one, one that is learnt against the student, and standardised logits."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean
from kd_det.registry import MODELS


@MODELS.register_module()
class CurriculumTemperature(nn.Module):
    r"""A temperature that makes the task harder for the student, little by little.

    .. math::
        T = t_{start} + t_{end} \, \sigma(\theta), \quad
        \theta \leftarrow \theta - \eta \, \lambda(e) \, \frac{\partial L}{\partial \theta}, \quad \lambda \le 0

    The one number :math:`\theta` is trained to *raise* the loss: its gradient, and only its own, is multiplied by
    :math:`\lambda`, which goes from ``decay_max`` = 0 to ``decay_min`` = -1 over ``decay_loops`` epochs:

    .. math::
        \lambda(e) = \lambda_{min} + \tfrac12 (\lambda_{max} - \lambda_{min})
        \big(1 + \cos(\pi \min(e, n) / n)\big)

    Use it in place of a number: ``T=dict(type='kd_det.CurriculumTemperature')``. Epochs count from 1; whoever runs the
    training calls :meth:`set_epoch`. The linear decay reaches ``decay_min`` after ``decay_loops`` epochs, unlike the
    published one, which stops one step before. The range is (t_start, t_start + t_end), the start 15.6 by default.
    Weight decay on ``global_T`` pulls T towards the middle of its range; exempt it.

    Reference: Li et al., "Curriculum Temperature for Knowledge Distillation", AAAI 2023, arXiv 2211.16231 (the global
    form).

    Args:
        t_start: Lowest temperature.
        t_end: Width of the range.
        theta: Start of the learnt number.
        decay_max: Factor of its gradient at epoch 0.
        decay_min: Factor after ``decay_loops`` epochs.
        decay_loops: Number of epochs from one to the other.
        decay: 'cosine' or 'linear'.
    """

    def __init__(
        self,
        t_start: float = 1.0,
        t_end: float = 20.0,
        theta: float = 1.0,
        decay_max: float = 0.0,
        decay_min: float = -1.0,
        decay_loops: float = 10,
        decay: str = 'cosine',
    ) -> None:
        super().__init__()
        for key, value, wanted, good in (
            ('t_start', t_start, 'a temperature above 0', t_start > 0),
            ('t_end', t_end, 'a number of 0 or more', t_end >= 0),
            ('decay_loops', decay_loops, 'a number of epochs above 0', decay_loops > 0),
            ('decay_max', decay_max, 'decay_min <= decay_max <= 0: above 0 the temperature would help', decay_max <= 0),
            ('decay_min', decay_min, 'decay_min <= decay_max', decay_min <= decay_max),
        ):
            if not good:
                raise ConfigError(f'CurriculumTemperature: {key}={value!r}, expected {wanted}.')
        if decay not in ('cosine', 'linear'):
            hint = did_you_mean(str(decay), ('cosine', 'linear'))
            raise ConfigError(f"CurriculumTemperature: decay={decay!r}, expected 'cosine' or 'linear'.{hint}")
        self.t_start, self.t_end = t_start, t_end
        self.decay_max, self.decay_min, self.decay_loops, self.decay = decay_max, decay_min, decay_loops, decay
        self.epoch: float = 1
        self.global_T = nn.Parameter(torch.full((1,), float(theta)))

    def set_epoch(self, epoch: float) -> None:
        """Tell the epoch that runs, counted from 1."""
        self.epoch = epoch

    def strength(self, epoch: float | None = None) -> float:
        """The factor of the gradient in an epoch, never above 0; None: in the running one."""
        part = min(max(self.epoch if epoch is None else epoch, 0), self.decay_loops) / self.decay_loops
        if self.decay == 'cosine':
            part = 0.5 * (1 - math.cos(math.pi * part))
        return self.decay_max + part * (self.decay_min - self.decay_max)

    def forward(self) -> Tensor:
        """The temperature, a scalar on the graph of ``global_T``."""
        temperature = (self.t_start + self.t_end * torch.sigmoid(self.global_T)).squeeze(0)
        fixed = temperature.detach()
        return fixed + self.strength() * (temperature - fixed)


def make_temperature(loss: str, key: str, value: float | Mapping | nn.Module) -> float | nn.Module:
    """A temperature of a config: a number above 0, or the config of (or a ready) module that gives one.

    Args:
        loss: The loss, for the message.
        key: Its argument, for the message.
        value: What the config says.

    Raises:
        ConfigError: If it is neither.
    """
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, Mapping) and 'type' in value:
        return MODELS.build(dict(value))
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConfigError(
            f"{loss}: {key}={value!r}, expected a temperature above 0 or dict(type='kd_det.CurriculumTemperature')."
        )
    return value


def temperature_of(value: float | nn.Module) -> float | Tensor:
    """The number now: of :func:`make_temperature`'s result."""
    return value() if isinstance(value, nn.Module) else value


def standardise(logits: Tensor, eps: float = 1e-7, ignored: Tensor | None = None) -> Tensor:
    r"""Logits with mean 0 and deviation 1: :math:`(x - \bar x) / (\epsilon + \mathrm{std}(x))` over the last axis.

    The deviation divides by K - 1. Rows without deviation (K = 1, or all logits equal) become 0 and get no gradient
    through the deviation. With K = 2 every row is :math:`\pm 0.707` and its gradient vanishes: use it for K > 2.

    Reference: Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, arXiv 2403.01427.

    Args:
        logits: Shape (..., K).
        eps: Added to the deviation.
        ignored: Numbers that do not count and become 0, bool, broadcastable to (..., K); None: all count.
    """
    if ignored is None:
        columns: Tensor | int = logits.shape[-1]
        centred = logits - logits.mean(-1, keepdim=True)
    else:
        columns = (~ignored).sum(-1, keepdim=True)
        mean = logits.masked_fill(ignored, 0).sum(-1, keepdim=True) / columns.clamp(min=1)
        centred = (logits - mean).masked_fill(ignored, 0)
        columns = columns.clamp(min=2)
    if isinstance(columns, int) and columns < 2:
        return centred
    deviation = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / (columns - 1) ** 0.5
    return centred / (eps + deviation)
