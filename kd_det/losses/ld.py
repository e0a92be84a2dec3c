"""Localisation distillation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import full_precision, shape_of, softmax_kl
from .temperature import make_temperature, standardise, temperature_of


@MODELS.register_module()
class LDLoss(nn.Module):
    r"""Localisation distillation of one level of a head that predicts a distribution over the distance to each side.

    With k the mean over the n + 1 bins of the terms of ``T² KL(teacher, student)`` of one side of one anchor:

    .. math::
        L_{ld} = \frac{w_{ld}}{4} \sum_{i \in \text{positive}} m_i \sum_{\text{sides}} k_i, \quad
        L_{vlr} = \frac{w_{vlr}}{16} \sum_{i \in \text{region}} v_i \sum_{\text{sides}} k_i, \quad
        L_{kd} = w_{kd} \, \mathrm{mean}_{i \in \text{positive}} \, \frac{T_{kd}^2}{K} \, \mathrm{KL}_i

    m is the student's highest class score (without gradient), v the value of an anchor of the valuable region around
    the positives, and the last term compares the soft-max of the class logits. The first two sums are divided by
    ``avg_factor`` if there is one; in the authors' code, by nothing, so that they grow with the images of a batch.
    Without positives or region, a term is a zero that is connected to the student.

    Reference: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, arXiv 2102.12252.

    Extra memory: four arrays of (anchors chosen) x 4 (n + 1); the maps themselves are not copied.

    Shape:
        - student: (B, 4 (n + 1), H, W), the sides as the slow axis, or rows (N, 4 (n + 1))
        - teacher: the same
        - result: dict of the scalars ``ld``, and ``ld_vlr`` and ``kd`` where their inputs are known

    Args:
        reg_max: The n of the formula.
        ld_T: Temperature of the distributions at positives.
        ld_weight: Their weight.
        vlr_T: Temperature of the distributions in the region.
        vlr_weight: Their weight.
        kd_T: Temperature of the class logits.
        kd_weight: Their weight.
        loss_weight: Factor of the whole.
        standardize: Standardise the n + 1 logits of each side, and the class logits, first.
    """

    same_channels = True

    def __init__(
        self,
        reg_max: int = 16,
        ld_T: float | dict | nn.Module = 10.0,
        ld_weight: float = 0.25,
        vlr_T: float | dict | nn.Module = 10.0,
        vlr_weight: float = 0.25,
        kd_T: float | dict | nn.Module = 2.0,
        kd_weight: float = 10.0,
        loss_weight: float = 1.0,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.reg_max, self.loss_weight, self.standardize = reg_max, loss_weight, standardize
        self.ld_T, self.vlr_T, self.kd_T = (
            make_temperature('LDLoss', name, value)
            for name, value in (('ld_T', ld_T), ('vlr_T', vlr_T), ('kd_T', kd_T))
        )
        self.ld_weight, self.vlr_weight, self.kd_weight = ld_weight, vlr_weight, kd_weight

    @full_precision
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        pos_inds: Tensor,
        vlr_inds: Tensor | None = None,
        vlr_value: Tensor | None = None,
        cls_student: Tensor | None = None,
        cls_teacher: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss.

        Args:
            student: Box logits, shape (B, 4 (n + 1), H, W) or (N, 4 (n + 1)).
            teacher: Box logits, the same shape.
            pos_inds: Positive anchors, shape (P,): ``(b H + y) W + x``, or the row.
            vlr_inds: Anchors of the valuable region, shape (V,).
            vlr_value: Their values, shape (V,); None: all 1.
            cls_student: Class logits, shape (B, K, H, W) or (N, K); None: all positives weigh 1.
            cls_teacher: Class logits, the same shape; None: no classification term.
            avg_factor: What ``ld`` and ``ld_vlr`` are divided by; None: nothing.

        Returns:
            Scalars ``ld``, ``ld_vlr`` (with ``vlr_inds``) and ``kd`` (with both class logits).

        Raises:
            ValueError: If shapes do not fit.
        """
        self._check('student', student, teacher, 4 * (self.reg_max + 1))
        if cls_student is None and cls_teacher is not None:
            raise ValueError('LDLoss: cls_teacher is given without cls_student.')
        if cls_student is not None:
            self._check('cls_student', cls_student, cls_student if cls_teacher is None else cls_teacher)
            if cls_student.dim() != student.dim() or _anchors(cls_student) != _anchors(student):
                raise ValueError(
                    f'LDLoss: cls_student {shape_of(cls_student)} must cover the anchors of student '
                    f'{shape_of(student)}.'
                )
        for name, inds in (('pos_inds', pos_inds), ('vlr_inds', vlr_inds)):
            if inds is not None and inds.dim() != 1:
                raise ValueError(f'LDLoss: {name} must have shape (number,), found {shape_of(inds)}.')
        if vlr_value is not None and (vlr_inds is None or vlr_value.shape != vlr_inds.shape):
            raise ValueError(
                f'LDLoss: vlr_value {shape_of(vlr_value)} and vlr_inds {shape_of(vlr_inds)} must have the same shape.'
            )

        value, scores = None, None
        if cls_student is not None:
            scores = _rows(cls_student, pos_inds)
            value = scores.detach().sigmoid().amax(1)
        losses = dict(ld=self.ld_weight / 4 * self._box(student, teacher, pos_inds, self.ld_T, value))
        if vlr_inds is not None:
            losses['ld_vlr'] = self.vlr_weight / 16 * self._box(student, teacher, vlr_inds, self.vlr_T, vlr_value)
        if avg_factor is not None:
            losses = {name: loss / avg_factor for name, loss in losses.items()}
        if cls_teacher is not None:
            T = temperature_of(self.kd_T)
            divergence = self._divergence(scores, _rows(cls_teacher.detach(), pos_inds), T)
            mean = divergence.sum() / (max(len(pos_inds), 1) * cls_student.shape[1])
            losses['kd'] = self.kd_weight * T**2 * mean
        idle = [self.vlr_T] * (vlr_inds is None) + [self.kd_T] * (cls_teacher is None)
        unused = [0.0 * temperature_of(T) for T in idle if isinstance(T, nn.Module)]  # learnt, and in DDP
        losses['ld'] = sum(unused, losses['ld'])
        return {name: self.loss_weight * loss for name, loss in losses.items()}

    def _divergence(self, student: Tensor, teacher: Tensor, T: float | Tensor) -> Tensor:
        if self.standardize:
            student, teacher = standardise(student), standardise(teacher)
        return softmax_kl(student, teacher, T)

    def _box(
        self, student: Tensor, teacher: Tensor, inds: Tensor, temperature: float | nn.Module, value: Tensor | None
    ) -> Tensor:
        """The sum over anchors and sides: a scalar."""
        bins, T = self.reg_max + 1, temperature_of(temperature)
        student, teacher = (_rows(x, inds).view(-1, 4, bins) for x in (student, teacher))
        divergence = self._divergence(student, teacher, T).sum(1)
        return T**2 / bins * (divergence if value is None else divergence * value.detach()).sum()

    @staticmethod
    def _check(name: str, student: Tensor, teacher: Tensor, channels: int | None = None) -> None:
        fits = student.shape == teacher.shape and student.dim() in (2, 4)
        if not fits or (channels is not None and student.shape[1] != channels):
            wanted = '' if channels is None else f' with {channels} channels, 4 sides of reg_max + 1 bins'
            raise ValueError(
                f'LDLoss: {name} and its teacher must have the same shape (B, C, H, W) or (N, C){wanted}; found '
                f'{shape_of(student)} and {shape_of(teacher)}.'
            )


def _anchors(maps: Tensor) -> tuple[int, ...]:
    return (maps.shape[0], *maps.shape[2:])


def _rows(maps: Tensor, inds: Tensor) -> Tensor:
    """The chosen anchors of (B, C, H, W) or (N, C): shape (number, C)."""
    if maps.dim() == 2:
        return maps[inds]
    height, width = maps.shape[2:]
    image = torch.div(inds, height * width, rounding_mode='floor')
    row = torch.div(inds, width, rounding_mode='floor') % height
    return maps.permute(0, 2, 3, 1)[image, row, inds % width]
