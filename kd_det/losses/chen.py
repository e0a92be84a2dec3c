"""Distillation of detection heads: soft class targets and teacher-bounded box regression.

Reference: Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NIPS 2017.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean
from kd_det.registry import MODELS

from ._functional import binary_kl, full_precision, normaliser, shape_of, softmax_kl
from .temperature import make_temperature, standardise, temperature_of


def _choice(loss: str, key: str, value: object, choices: tuple) -> None:
    if value not in choices:
        hint = did_you_mean(str(value), [c for c in choices if isinstance(c, str)])
        raise ConfigError(f'{loss}: {key}={value!r}, expected one of {", ".join(map(repr, choices))}.{hint}')


def _check_rows(loss: str, student: Tensor, teacher: Tensor, **others: Tensor | None) -> None:
    """Equal shapes (N, K) of student and teacher; all others must begin with N."""
    shapes = ', '.join(f'{name} {shape_of(value)}' for name, value in others.items() if value is not None)
    shapes = f'student {shape_of(student)}, teacher {shape_of(teacher)}' + (f', {shapes}' if shapes else '')
    if student.dim() != 2 or student.shape != teacher.shape:
        raise ValueError(f'{loss}: student and teacher must be rows of equal shape (N, K), found {shapes}.')
    if any(value is not None and value.shape[:1] != student.shape[:1] for value in others.values()):
        raise ValueError(f'{loss}: all inputs must have as many rows as the student, found {shapes}.')


def _class_weights(like: Tensor, background: str | None, pos_weight: float, neg_weight: float) -> Tensor | None:
    """The weight of each class column, shape (K,); None if all are 1."""
    if pos_weight == 1 and (background is None or neg_weight == 1):
        return None
    weights = like.new_full((like.shape[-1],), pos_weight)
    if background is not None:
        weights[-1 if background == 'last' else 0] = neg_weight
    return weights


@MODELS.register_module()
class SoftTargetLoss(nn.Module):
    r"""Soft class targets for the rows (anchors, RoIs) of a detection head.

    Soft-max heads, where the background is one of the K columns: the weighted divergence of the softened distributions,

    .. math::
        L = \frac{T^2}{N} \sum_i \sum_c w_c \, p_{t,ic} \log \frac{p_{t,ic}}{p_{s,ic}},
        \quad p = \mathrm{softmax}(z / T)

    with ``w = neg_weight`` for the background column and ``pos_weight`` for the others. Sigmoid heads, where the K
    classes stand apart: per class the binary divergence of ``sigmoid(z / T)``, summed over the classes; rows of the
    foreground weigh ``pos_weight``, rows of the background ``neg_weight``.

    N is ``avg_factor``, or else the number of foreground rows, at least 1: the many easy background rows would drown
    a mean over all. Without labels N is the number of rows, and every row of a sigmoid head weighs ``pos_weight``.
    Rows with label -1 or ``label_weights`` 0 are left out; other values of ``label_weights`` multiply their row.

    ``form='ce'`` is the weighted cross entropy :math:`-w_c p_t \log p_s` of the paper; gradients are equal, but only
    'kl' is 0 at equality (with weights that differ the minimum lies elsewhere, and 'kl' can be negative).

    Reference: Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NIPS 2017; the
    plain form: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, arXiv 1503.02531.

    Extra memory: about four tensors of N x K.

    Shape:
        - student, teacher: logits (N, K)
        - labels, label_weights: (N,)
        - result: scalar

    Args:
        T: Temperature.
        use_sigmoid: The heads use a sigmoid per class instead of a soft-max.
        pos_weight: Weight of the foreground.
        neg_weight: Weight of the background.
        background: Where the background column of a soft-max head is: 'last' (MMDetection), 'first', or None if there
            is none. Labels count alike: for 'last', label K - 1 is background. Sigmoid heads: every label outside
            [0, K) is.
        form: 'kl' or 'ce'.
        eps: Added to both probabilities of a soft-max head; 0 works on log-soft-max.
        loss_weight: Factor of the whole.
        standardize: Standardise the logits of each row first; for K > 2.
    """

    def __init__(
        self,
        T: float | dict | nn.Module = 1.0,
        use_sigmoid: bool = False,
        pos_weight: float = 1.0,
        neg_weight: float = 1.5,
        background: str | None = 'last',
        form: str = 'kl',
        eps: float = 0.0,
        loss_weight: float = 1.0,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        _choice('SoftTargetLoss', 'background', background, ('last', 'first', None))
        _choice('SoftTargetLoss', 'form', form, ('kl', 'ce'))
        self.T = make_temperature('SoftTargetLoss', 'T', T)
        self.use_sigmoid, self.standardize = use_sigmoid, standardize
        self.pos_weight, self.neg_weight, self.background = pos_weight, neg_weight, background
        self.form, self.eps, self.loss_weight = form, eps, loss_weight

    @full_precision
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        labels: Tensor | None = None,
        label_weights: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            student: Logits, shape (N, K); N may be 0.
            teacher: Logits, shape (N, K).
            labels: Class of each row, shape (N,), int.
            label_weights: Weight of each row, shape (N,).
            avg_factor: Normaliser.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        _check_rows('SoftTargetLoss', student, teacher, labels=labels, label_weights=label_weights)
        T = temperature_of(self.T)
        if self.standardize:
            student, teacher = standardise(student), standardise(teacher)
        if self.use_sigmoid:
            rows = binary_kl(student, teacher, T, self.form).sum(1)
        else:
            weights = _class_weights(student, self.background, self.pos_weight, self.neg_weight)
            rows = softmax_kl(student, teacher, T, weights, self.form, self.eps)
        row_weights = None if label_weights is None else label_weights.to(rows.dtype)
        number: Tensor | float = student.shape[0]
        if labels is not None:
            foreground = self._is_foreground(labels, student.shape[1])
            counted = labels != -1
            if label_weights is not None:
                counted = counted & (label_weights > 0)
            number = (foreground & counted).sum()
            row_weights = counted if row_weights is None else row_weights * counted
        if self.use_sigmoid:
            if labels is None:
                rows = rows * self.pos_weight
            else:
                role_weights = torch.full_like(rows, self.pos_weight).masked_fill(~foreground, self.neg_weight)
                row_weights = row_weights * role_weights
        if row_weights is not None:
            rows = rows * row_weights
        return self.loss_weight * T**2 * rows.sum() / normaliser(avg_factor, number)

    def _is_foreground(self, labels: Tensor, columns: int) -> Tensor:
        """Which rows hold an object, shape (N,)."""
        first = 1 if self.background == 'first' and not self.use_sigmoid else 0
        end = columns - 1 if self.background == 'last' and not self.use_sigmoid else columns
        return (labels >= first) & (labels < end)


@MODELS.register_module()
class TeacherBoundedL2Loss(nn.Module):
    r"""Box regression bounded by the teacher: pulls the student to the target only where it is worse than the teacher.

    .. math::
        L = \frac 1 {N_{pos}} \sum_{i \in pos} d_{s,i} \, [\, d_{s,i} + m > d_{t,i} \,], \quad
        d_x = \lVert x - target \rVert_2^2

    The teacher is a gate and not a target: its own boxes may be wrong in any direction.

    Reference: Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NIPS 2017.

    Extra memory: about two tensors of N x 4.

    Shape:
        - student, teacher, bbox_targets: (N, 4), encoded alike
        - bbox_weights: (N, 4) or (N,)
        - result: scalar

    Args:
        reg_m: Margin m: how much better than the teacher (in squared distance) the student has to be to be left alone.
        loss_weight: Factor of the whole.
    """

    def __init__(self, reg_m: float = 0.0, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.reg_m, self.loss_weight = reg_m, loss_weight

    @full_precision
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            student: Predicted offsets, shape (N, 4); N may be 0.
            teacher: Predicted offsets, shape (N, 4).
            bbox_targets: Offsets of the matched boxes, shape (N, 4).
            bbox_weights: Above 0 for positive rows, shape (N, 4) or (N,); None: all rows are positive. The size of a
                weight does not matter.
            avg_factor: Normaliser; None: number of positive rows. At least 1.

        Returns:
            Scalar; 0, but connected to the student, if no row is positive.

        Raises:
            ValueError: If shapes do not fit.
        """
        name = 'TeacherBoundedL2Loss'
        _check_rows(name, student, teacher, bbox_targets=bbox_targets, bbox_weights=bbox_weights)
        if bbox_targets.shape != student.shape:
            raise ValueError(f'{name}: bbox_targets must be {shape_of(student)}, found {shape_of(bbox_targets)}.')
        if bbox_weights is None:
            positive = student.new_ones(student.shape[0], dtype=torch.bool)
        else:
            positive = (bbox_weights > 0).flatten(1).any(1) if bbox_weights.dim() > 1 else bbox_weights > 0
        distance = bounded_l2(student, teacher, bbox_targets, positive, self.reg_m)
        return self.loss_weight * distance.sum() / normaliser(avg_factor, positive.sum())


def bounded_l2(student: Tensor, teacher: Tensor, target: Tensor, positive: Tensor, reg_m: float = 0.0) -> Tensor:
    """Squared distance of positive rows where the student's, plus a margin, is larger than the teacher's, else 0.

    Args:
        student: Shape (..., 4).
        teacher: Shape (..., 4).
        target: Shape (..., 4).
        positive: Bool, shape (...).
        reg_m: The margin.

    Returns:
        Shape (...).
    """
    # Rows that do not count may hold anything as a target, even infinities: take them out before any arithmetic.
    target = torch.where(positive[..., None], target, student.detach())
    distance = (student - target).square().sum(-1)
    bound = (teacher - target).square().sum(-1)
    return distance * (positive & (distance.detach() + reg_m > bound))


@MODELS.register_module()
class MultiBoxKDLoss(nn.Module):
    r"""The MultiBox loss of SSD with a teacher.

    .. math::
        L = 0.3\,soft + 0.7\,conf + 0.5\,l2 + 1.0\,loc

    over N, the number of positive priors of the batch, at least 1:

    - conf: cross entropy of the positives and of the hardest negatives, ``negpos_ratio`` per positive of the same
      image, or ``negatives_for_hard`` in an image without positives;
    - soft: :class:`SoftTargetLoss` (soft-max form) on the same priors;
    - loc: smooth L1 of the positives; l2: :class:`TeacherBoundedL2Loss` of the positives.

    An image without positives adds its negatives to the sums but nothing to N, as in the published recipe: a batch
    without any positive divides by 1 and is large. The class weights hold for every value of ``neg_w``; the published
    listing drops both unless ``neg_w > 1``.

    References: Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NIPS 2017;
    mining: Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv 1512.02325.

    Extra memory: about six tensors of B x P x K and four of B x P x 4.

    Shape:
        - student, teacher: dicts with ``loc`` (B, P, 4) and ``conf`` logits (B, P, K)
        - loc_t: (B, P, 4); conf_t, conf_weights: (B, P)
        - result: dict of four scalars

    Args:
        neg_w: Weight of the background column in ``soft``.
        pos_w: Weight of the other columns in ``soft``.
        Temp: Temperature of ``soft``.
        reg_m: Margin of ``l2``.
        negpos_ratio: Negatives per positive.
        negatives_for_hard: Negatives of an image without positives.
        background: Which class is the background: 'last' (MMDetection) or 'first'.
        eps: Added to both probabilities in ``soft``.
        soft_weight: Factor of ``soft``.
        conf_weight: Factor of ``conf``.
        l2_weight: Factor of ``l2``.
        loc_weight: Factor of ``loc``.
        standardize: Standardise the logits of each prior first, in ``soft`` alone; for K > 2.
    """

    def __init__(
        self,
        neg_w: float = 1.5,
        pos_w: float = 1.0,
        Temp: float | dict | nn.Module = 1.0,
        reg_m: float = 0.0,
        negpos_ratio: float = 3,
        negatives_for_hard: int = 100,
        background: str = 'last',
        eps: float = 1e-10,
        soft_weight: float = 0.3,
        conf_weight: float = 0.7,
        l2_weight: float = 0.5,
        loc_weight: float = 1.0,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        _choice('MultiBoxKDLoss', 'background', background, ('last', 'first'))
        self.Temp = make_temperature('MultiBoxKDLoss', 'Temp', Temp)
        self.neg_w, self.pos_w, self.reg_m, self.eps, self.standardize = neg_w, pos_w, reg_m, eps, standardize
        self.negpos_ratio, self.negatives_for_hard, self.background = negpos_ratio, negatives_for_hard, background
        self.soft_weight, self.conf_weight = soft_weight, conf_weight
        self.l2_weight, self.loc_weight = l2_weight, loc_weight

    @full_precision
    def forward(
        self,
        student: dict[str, Tensor],
        teacher: dict[str, Tensor],
        loc_t: Tensor,
        conf_t: Tensor,
        conf_weights: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the loss.

        Args:
            student: ``loc``, shape (B, P, 4), and ``conf``, logits of shape (B, P, K).
            teacher: The same, on the same priors.
            loc_t: Encoded target boxes, shape (B, P, 4); only positives count.
            conf_t: Target classes, shape (B, P), int.
            conf_weights: 0 leaves a prior out of everything, also of the mining; shape (B, P).

        Returns:
            ``soft``, ``conf``, ``l2``, ``loc``, each with its factor; their sum is the loss.

        Raises:
            ValueError: If shapes do not fit.
        """
        self._check(student, teacher, loc_t, conf_t, conf_weights)
        loc, conf = student['loc'], student['conf']
        used = torch.ones_like(conf_t, dtype=torch.bool) if conf_weights is None else conf_weights > 0
        entropy = F.cross_entropy(conf.flatten(0, 1), torch.where(used, conf_t, 0).flatten(), reduction='none')
        entropy = entropy.view(conf_t.shape)
        positive, selected = self.mine(entropy, conf_t, conf.shape[2], used)
        number = positive.sum().clamp(min=1)
        columns = _class_weights(conf, self.background, self.pos_w, self.neg_w)
        T = temperature_of(self.Temp)
        logits = [standardise(x) if self.standardize else x for x in (conf, teacher['conf'])]
        soft = softmax_kl(*logits, T, columns, 'kl', self.eps)
        target = torch.where(positive[..., None], loc_t, loc.detach())
        return dict(
            soft=self.soft_weight * T**2 * (soft * selected).sum() / number,
            conf=self.conf_weight * (entropy * selected).sum() / number,
            l2=self.l2_weight * bounded_l2(loc, teacher['loc'], loc_t, positive, self.reg_m).sum() / number,
            loc=self.loc_weight * F.smooth_l1_loss(loc, target, reduction='sum') / number,
        )

    @torch.no_grad()
    def mine(
        self, entropy: Tensor, conf_t: Tensor, num_classes: int, used: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Choose the priors that train the classifier.

        Args:
            entropy: Cross entropy of each prior, shape (B, P).
            conf_t: Target classes, shape (B, P).
            num_classes: K, with the background.
            used: False for priors to leave out, shape (B, P); None: all are used.

        Returns:
            The positives, and the positives together with the hard negatives; bool, shape (B, P).
        """
        used = torch.ones_like(conf_t, dtype=torch.bool) if used is None else used
        negative = used & (conf_t == (num_classes - 1 if self.background == 'last' else 0))
        positive = used & ~negative
        number = positive.sum(1, keepdim=True)
        wanted = torch.where(number > 0, self.negpos_ratio * number, self.negatives_for_hard)
        wanted = wanted.clamp(max=conf_t.shape[1] - 1)
        hardest = entropy.masked_fill(~negative, -float('inf')).argsort(dim=1, descending=True, stable=True)
        place = torch.arange(conf_t.shape[1], device=conf_t.device).expand_as(hardest)
        rank = torch.empty_like(hardest).scatter_(1, hardest, place)
        return positive, positive | (negative & (rank < wanted))

    @staticmethod
    def _check(
        student: dict[str, Tensor],
        teacher: dict[str, Tensor],
        loc_t: Tensor,
        conf_t: Tensor,
        conf_weights: Tensor | None,
    ) -> None:
        for role, value in (('student', student), ('teacher', teacher)):
            if not isinstance(value, dict) or not {'loc', 'conf'} <= value.keys():
                found = sorted(value) if isinstance(value, dict) else type(value).__name__
                raise ValueError(f"MultiBoxKDLoss: {role} must be a dict with 'loc' and 'conf', found {found}.")
        tensors = {
            f'{role}.{key}': value[key]
            for role, value in (('student', student), ('teacher', teacher))
            for key in ('loc', 'conf')
        }
        tensors.update(loc_t=loc_t, conf_t=conf_t)
        if conf_weights is not None:
            tensors.update(conf_weights=conf_weights)
        shapes = ', '.join(f'{name} {shape_of(value)}' for name, value in tensors.items())
        loc, conf = student['loc'], student['conf']
        fits = (
            loc.dim() == 3
            and conf.dim() == 3
            and loc.shape[:2] == conf.shape[:2] == conf_t.shape
            and teacher['loc'].shape == loc.shape == loc_t.shape
            and teacher['conf'].shape == conf.shape
            and (conf_weights is None or conf_weights.shape == conf_t.shape)
        )
        if not fits:
            raise ValueError(
                'MultiBoxKDLoss: loc must be (B, P, 4) and conf (B, P, K) in student and teacher, loc_t (B, P, 4) and '
                f'conf_t (B, P), found {shapes}.'
            )
