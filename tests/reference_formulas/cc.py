"""Correlation congruence (arXiv 1904.01802), in its three forms."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ._plain import unit


def _products(x: Tensor) -> Tensor:
    x = x.flatten(1)
    return (x[:, None] * x[None]).sum(2)


def paper(student: Tensor, teacher: Tensor, gamma: float = 0.4, P_order: int = 2, loss_weight: float = 1.0) -> Tensor:
    """The Taylor series of a Gaussian kernel of rows of unit length, term by term."""

    def kernel(x: Tensor) -> Tensor:
        cosines = _products(unit(x.flatten(1), 1))
        terms = [(2 * gamma) ** p / math.factorial(p) * cosines**p for p in range(P_order + 1)]
        return math.exp(-2 * gamma) * sum(terms)

    return loss_weight * ((kernel(student) - kernel(teacher)) ** 2).mean()


def listing(student: Tensor, teacher: Tensor, variant: str = 'listing', loss_weight: float = 1.0) -> Tensor:
    """Scalar products over the Frobenius norm of their matrix."""
    s, t = (_products(x) for x in (student, teacher))
    return loss_weight * ((s / (s**2).sum().sqrt() - t / (t**2).sum().sqrt()) ** 2).sum() / len(student) ** 2


def repdistiller(
    student: Tensor,
    teacher: Tensor,
    module: nn.Module,
    variant: str = 'repdistiller',
    feat_dim: int = 128,
    loss_weight: float = 1.0,
) -> Tensor:
    """Products of the errors of neighbouring rows, one row after the other."""
    error = (module.embed_s['linear'](student) - module.embed_t['linear'](teacher)).abs()
    total = 0.0
    for i in range(1, len(error)):
        total = total + (error[i] * error[i - 1]).sum()
    return loss_weight * total / (len(error) - 1)
