"""Relational knowledge distillation."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from kd_det.errors import ConfigError
from kd_det.registry import MODELS

from ._functional import full_precision
from ._rows import flat_rows, nothing, unit


@MODELS.register_module()
class RKDLoss(nn.Module):
    r"""Distances between pairs of rows and angles in triples of rows.

    .. math::
        L = w_d \frac{1}{N^2} \sum_{ij} h\Big(\frac{D^s_{ij}}{\bar D^s} - \frac{D^t_{ij}}{\bar D^t}\Big)
          + w_a \frac{1}{N^3} \sum_{ijk} h\big(A^s_{ijk} - A^t_{ijk}\big)

        D_{ij} = |x_i - x_j|, \quad
        A_{ijk} = \frac{x_j - x_i}{|x_j - x_i|} \cdot \frac{x_k - x_i}{|x_k - x_i|}

    with the mean distance over all pairs of different rows and h the smooth L1 function. A row is what belongs to one
    instance, flattened; widths may differ. Fewer than three rows give 0.

    Distances are those of the differences themselves, in double precision; scalar products would cancel for rows that
    lie near each other. Angles follow from them by the law of cosines.

    The direction between two equal rows (no further apart than 1e-12) is taken as zero, with no gradient
    (``bound_gradient``); the published code divides by 1e-12 there, which gives gradients of 1e10 as soon as the
    teacher's rows differ.

    Reference: Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068 (weights for
    classification; 1 and 2 for metric learning).

    Extra memory: about six matrices of N x N and a few blocks of 2^18 numbers, in double precision; for the angles,
    with M = min(N, max_angle_rows), at most some 10 blocks of 2^15 numbers (or M² if that is more; made again in the
    backward pass). Never N x N x D.

    Shape:
        - student: (N, ...)
        - teacher: (N, ...)
        - result: scalar

    Args:
        w_d: Weight of the distances.
        w_a: Weight of the angles.
        l2_norm: Scale each row to length 1 first.
        max_angle_rows: With more rows, angles are taken among that many drawn at random.
        bound_gradient: No gradient through the direction between equal rows; False: as published. Values are the same.
        eps: Least squared distance.
        loss_weight: Factor of the whole.
    """

    same_channels = False
    row_adapter = 'kd_det.Instances'

    def __init__(
        self,
        w_d: float = 25.0,
        w_a: float = 50.0,
        l2_norm: bool = False,
        max_angle_rows: int = 64,
        bound_gradient: bool = True,
        eps: float = 1e-12,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if max_angle_rows < 3:
            raise ConfigError(f'RKDLoss: max_angle_rows={max_angle_rows!r}, expected 3 or more.')
        self.w_d, self.w_a, self.l2_norm, self.max_angle_rows = w_d, w_a, l2_norm, max_angle_rows
        self.bound_gradient, self.eps, self.loss_weight = bound_gradient, eps, loss_weight

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            student: Shape (N, ...); N may be 0.
            teacher: Shape (N, ...).

        Returns:
            Scalar.

        Raises:
            ValueError: If the number of rows differs.
        """
        student, teacher = flat_rows('RKDLoss', student, teacher)
        if self.l2_norm:
            student, teacher = unit(student), unit(teacher)
        value = nothing(student)
        if student.shape[0] < 3:
            return value
        if self.w_d:
            value = value + self.w_d * self.distance(student, teacher)
        if self.w_a:
            value = value + self.w_a * self.angle(student, teacher)
        return self.loss_weight * value

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The distances' part, without weight, of rows (N, D_s) and (N, D_t)."""
        found = F.smooth_l1_loss(self._distances(student), self._distances(teacher))
        return found.to(student.dtype)

    def angle(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The angles' part, without weight, of rows (N, D_s) and (N, D_t)."""
        number = student.shape[0]
        if number > self.max_angle_rows:
            drawn = torch.randperm(number, device=student.device)[: self.max_angle_rows]
            student, teacher, number = student[drawn], teacher[drawn], self.max_angle_rows
        options = dict(use_reentrant=False, preserve_rng_state=False)
        total = nothing(student)
        if self.bound_gradient:
            squares = _squared_distances(student), _squared_distances(teacher)
            step = max(1, 2**15 // number**2)
            for first in range(0, number, step):
                total = total + checkpoint(_angles_of, *squares, slice(first, first + step), **options)
        else:
            for apex in range(number):
                total = total + checkpoint(_angles_at, student, teacher, apex, **options)
        return (total / number**3).to(student.dtype)

    def _distances(self, rows: Tensor) -> Tensor:
        """Distances over their mean, shape (N, N)."""
        number = rows.shape[0]
        same = torch.eye(number, dtype=torch.bool, device=rows.device)
        distances = _squared_distances(rows).clamp(min=self.eps).sqrt().masked_fill(same, 0)
        return distances / (distances.sum() / (number * (number - 1)))


def _double(rows: Tensor) -> torch.dtype:
    """Double precision where the device has it."""
    return rows.dtype if rows.device.type == 'mps' else torch.float64


def _squared_distances(rows: Tensor) -> Tensor:
    """Of all pairs of rows (N, D): shape (N, N), of :func:`_double`."""
    return _SquaredDistances.apply(rows)


class _SquaredDistances(torch.autograd.Function):
    """Of the differences themselves, as ``cdist``, whose backward pass may take N x N x D numbers."""

    @staticmethod
    def _blocks(rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Some columns at a time, in double precision."""
        step = max(1, 2**18 // max(1, rows.shape[0]))
        for first in range(0, rows.shape[1], step):
            at = slice(first, first + step)
            yield at, rows[:, at].to(_double(rows))

    @staticmethod
    def forward(ctx, rows):
        ctx.save_for_backward(rows)
        squares = rows.new_zeros(len(rows), len(rows), dtype=_double(rows))
        for _, block in _SquaredDistances._blocks(rows):
            squares += torch.cdist(block, block, compute_mode='donot_use_mm_for_euclid_dist').square_()
        return squares

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (rows,) = ctx.saved_tensors
        result = torch.empty_like(rows)
        both = gradient + gradient.T
        whole = both.sum(1, keepdim=True)
        for at, block in _SquaredDistances._blocks(rows):
            block = block - block.mean(0)
            # sum_j both_ij (x_i - x_j): of products, and still exact to 1e-16 |x| / |x_i - x_j|
            result[:, at] = torch.addmm(block * whole, both, block, alpha=-1).mul_(2)
        return result


def _angles_of(squares_s: Tensor, squares_t: Tensor, apexes: slice) -> Tensor:
    """Smooth L1, summed, of the cosines at some rows, from squared distances: at most N x N x apexes numbers."""
    cosines = []
    for squares in (squares_s, squares_t):
        sides = squares[apexes]
        same = sides <= 1e-24
        inverse = sides.masked_fill(same, 1).rsqrt().masked_fill(same, 0)
        across = (sides[:, :, None] + sides[:, None] - squares) / 2  # (x_j - x_i) . (x_k - x_i)
        cosines.append(across * inverse[:, :, None] * inverse[:, None])
    return F.smooth_l1_loss(*cosines, reduction='sum')


def _angles_at(student: Tensor, teacher: Tensor, apex: int) -> Tensor:
    """Smooth L1, summed, of the cosines at one row, as published: with a slope of 1e12 between equal rows."""
    cosines = []
    for rows in (student, teacher):
        directions = F.normalize(rows - rows[apex], dim=1)
        cosines.append(directions @ directions.T)
    return F.smooth_l1_loss(*cosines, reduction='sum')
