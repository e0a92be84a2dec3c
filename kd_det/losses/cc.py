"""Correlation congruence."""

from __future__ import annotations

import math

from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean
from kd_det.registry import MODELS

from ._functional import full_precision, shape_of
from ._rows import flat_rows, nothing, unit

_VARIANTS = ('paper', 'repdistiller', 'listing')


@MODELS.register_module()
class CCLoss(nn.Module):
    r"""Correlations between rows, in three different forms that go by this name.

    ``variant='paper'``: the Gaussian kernel of the rows x of length 1, as a Taylor series of order P,

    .. math::
        L = \frac{1}{N^2} \sum_{ij} (K^s_{ij} - K^t_{ij})^2, \quad
        K_{ij} = e^{-2 \gamma} \sum_{p=0}^{P} \frac{(2 \gamma)^p}{p!} (x_i \cdot x_j)^p

    ``variant='repdistiller'``: products of the errors of neighbouring rows, after a linear layer on either side, both
    trained (e, f); the order of the rows matters. Their weight is 0.02.

    .. math::
        L = \frac{1}{N - 1} \sum_{i=2}^{N} \sum_c |e_i - f_i|_c \, |e_{i-1} - f_{i-1}|_c

    ``variant='listing'``, of several tutorials: scalar products over the Frobenius norm of their matrix,

    .. math::
        L = \frac{1}{N^2} \sum_{ij} (A^s_{ij} - A^t_{ij})^2, \quad A = X X^\top / \lVert X X^\top \rVert_F

    A row is what belongs to one instance, flattened; widths may differ. Fewer than two rows give 0.

    Reference: Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019, arXiv 1904.01802.

    Extra memory: about six matrices of N x N; 'repdistiller': four of N x feat_dim.

    Shape:
        - student: (N, ...); 'repdistiller': (N, student_channels)
        - teacher: (N, ...); 'repdistiller': (N, teacher_channels)
        - result: scalar

    Args:
        variant: 'paper', 'repdistiller' or 'listing'.
        gamma: Width of the kernel ('paper').
        P_order: Order of the series ('paper').
        feat_dim: Width of the linear layers ('repdistiller').
        student_channels: Width of the student's rows; needed for 'repdistiller' only.
        teacher_channels: Width of the teacher's rows; needed for 'repdistiller' only.
        loss_weight: Factor of the whole.
    """

    same_channels = False
    row_adapter = 'kd_det.Instances'

    def __init__(
        self,
        variant: str = 'paper',
        gamma: float = 0.4,
        P_order: int = 2,
        feat_dim: int = 128,
        student_channels: int | None = None,
        teacher_channels: int | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if variant not in _VARIANTS:
            hint = did_you_mean(str(variant), _VARIANTS)
            raise ConfigError(f'CCLoss: variant={variant!r}, expected one of {", ".join(map(repr, _VARIANTS))}.{hint}')
        if P_order < 1 or P_order != int(P_order):
            raise ConfigError(f'CCLoss: P_order={P_order!r}, expected a whole number of 1 or more.')
        self.variant, self.gamma, self.P_order = variant, gamma, int(P_order)
        self.student_channels, self.teacher_channels = student_channels, teacher_channels
        self.loss_weight = loss_weight
        self.embed_s = self.embed_t = None
        if variant == 'repdistiller':
            if student_channels is None or teacher_channels is None:
                raise ConfigError(
                    "CCLoss: variant='repdistiller' needs student_channels and teacher_channels, found "
                    f'{student_channels!r} and {teacher_channels!r}.'
                )
            self.embed_s = nn.ModuleDict(dict(linear=nn.Linear(student_channels, feat_dim)))
            self.embed_t = nn.ModuleDict(dict(linear=nn.Linear(teacher_channels, feat_dim)))

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            student: Shape (N, ...); N may be 0.
            teacher: Shape (N, ...).

        Returns:
            Scalar.

        Raises:
            ValueError: If the number of rows differs, or their widths are not those of the layers.
        """
        shapes = f'student {shape_of(student)}, teacher {shape_of(teacher)}'
        student, teacher = flat_rows('CCLoss', student, teacher)
        if self.variant == 'repdistiller':
            if (student.shape[1], teacher.shape[1]) != (self.student_channels, self.teacher_channels):
                raise ValueError(
                    f"CCLoss: variant='repdistiller' expects rows of {self.student_channels} numbers (student) and "
                    f'{self.teacher_channels} (teacher), found {shapes}.'
                )
            student, teacher = self.embed_s['linear'](student), self.embed_t['linear'](teacher)
        if student.shape[0] < 2:
            return nothing(student, teacher)
        if self.variant == 'repdistiller':
            error = (student - teacher).abs()
            return self.loss_weight * (error[1:] * error[:-1]).sum(1).mean()
        matrix = self.kernel if self.variant == 'paper' else _gram
        return self.loss_weight * (matrix(student) - matrix(teacher)).square().mean()

    def kernel(self, rows: Tensor) -> Tensor:
        """K of the paper, of rows (N, D); shape (N, N)."""
        rows = unit(rows)
        cosines, value = rows @ rows.T, 0.0
        for p in range(self.P_order, -1, -1):
            value = value * cosines + (2 * self.gamma) ** p / math.factorial(p)
        return math.exp(-2 * self.gamma) * value


def _gram(rows: Tensor) -> Tensor:
    """Scalar products over the Frobenius norm of their matrix, shape (N, N)."""
    products = rows @ rows.T
    return unit(products.flatten()).view_as(products)
