"""Heads that predict a distribution over the distance to each side of a box (GFL), with the anchors that teach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmdet.utils import reduce_mean
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS
from kd_det.taps import levels_of

from .base import Adapter, Pair
from .rows import check_same


def valuable_region(anchors: Tensor, sizes: Sequence[int], boxes: Tensor, topk: int = 9, gamma: float = 0.25) -> Tensor:
    r"""How much the anchors around the positives of one image are worth for localisation distillation.

    With the ATSS threshold of a box, :math:`\alpha` = mean + standard deviation of the IoU of the ``topk`` anchors of
    each level whose centres are nearest to it, the region of the box is :math:`\gamma \alpha \le DIoU < \alpha`, over
    the anchors of all levels. An anchor is worth its IoU with the box, of several boxes the highest. As published, a
    positive is not taken out: it is in the region too if its DIoU is low enough, or for another box.

    Reference: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, arXiv 2102.12252.

    Extra memory: about ten arrays of anchors x boxes.

    Args:
        anchors: Shape (n, 4), xyxy, in pixels, level after level.
        sizes: How many of them each level has.
        boxes: Ground truth, shape (k, 4), xyxy, in pixels; k may be 0.
        topk: How many anchors of each level make the threshold.
        gamma: Width of the region: 1 makes it empty.

    Returns:
        Shape (n,): 0 outside the region.
    """
    if not len(anchors) or not len(boxes):
        return anchors.new_zeros(len(anchors))
    iou = bbox_overlaps(anchors, boxes)
    centres = [(x[:, :2] + x[:, 2:]) / 2 for x in (anchors, boxes)]
    distance = (centres[0][:, None] - centres[1]).square().sum(-1)
    nearest, start = [], 0
    for level in distance.split(list(sizes)):
        nearest.append(start + level.topk(min(topk, len(level)), dim=0, largest=False).indices)
        start += len(level)
    candidates = iou.gather(0, torch.cat(nearest))
    threshold = candidates.mean(0) + candidates.std(0)
    corners = [torch.minimum(anchors[:, None, :2], boxes[:, :2]), torch.maximum(anchors[:, None, 2:], boxes[:, 2:])]
    diou = iou - distance / (corners[1] - corners[0]).square().sum(-1).clamp(min=1e-7)
    return (iou * ((diou >= gamma * threshold) & (diou < threshold))).amax(1)


@MODELS.register_module()
class BoxDistributions(Adapter):
    """The box distributions of a GFL-type head, level by level, for :class:`~kd_det.losses.LDLoss`.

    The term's taps read the box regression (``bbox_head[1]``), maps (B, 4 (n + 1), H, W). Positives are the student's
    own: the adapter reads its ``get_targets()`` and the class scores of both heads by itself. Extras of a level:

    - ``pos_inds``: positive anchors, shape (P,), as ``(b H + y) W + x``
    - ``vlr_inds``, ``vlr_value``: the valuable region around them and its values, shape (V,), see
      :func:`valuable_region`; with ``region``
    - ``cls_student``, ``cls_teacher``: class logits, shape (B, K, H, W); the teacher's with ``kd``
    - ``avg_factor``: with ``normalise``, what GFL divides its own box losses by: the positives of all levels, each
      counted by its highest class score, as a mean over processes, at least 1

    The authors divide their sums by nothing, so that the weight of the loss grows with the images on a device.

    Both heads need the same ``reg_max``, the same strides and one anchor per cell; the size of the anchors may differ,
    because distances count from their centres.

    Args:
        region: Give the valuable region too.
        kd: Give the teacher's class scores too; needs the same classes.
        gamma: Width of the region.
        topk: See :func:`valuable_region`; None: that of the student's assigner, or 9.
        normalise: Give ``avg_factor``.
    """

    def __init__(
        self,
        region: bool = True,
        kd: bool = True,
        gamma: float = 0.25,
        topk: int | None = None,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= gamma <= 1:
            raise ConfigError(f'adapter.gamma: found {gamma!r}, expected a number from 0 to 1.')
        if topk is not None and topk < 1:
            raise ConfigError(f'adapter.topk: found {topk!r}, expected 1 or more, or None.')
        self.region, self.kd, self.gamma, self.topk, self.normalise = region, kd, gamma, topk, normalise
        self.reg_max, self.num_classes = 0, 0

    @property
    def inputs(self) -> dict[str, str]:
        head = self.student_tap.path
        taps = dict(targets=f'{head}.get_targets()', cls_student=f'{head}[0]')
        return dict(taps, cls_teacher=f'teacher:{self.teacher_taps[0].path}[0]') if self.kd else taps

    def loss_options(self, index: int) -> dict[str, Any]:
        return dict(reg_max=self.reg_max)

    def check_modules(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        for side, head in (('student', student), ('teacher', teacher)):
            if not hasattr(head, 'reg_max') or not hasattr(head, 'prior_generator'):
                raise ConfigError(
                    f'{key}.{side}: {type(head).__name__} predicts no distributions of distances (it has no reg_max); '
                    "expected the tap 'bbox_head[1]' of a GFL-type head."
                )
            if set(head.prior_generator.num_base_priors) != {1}:
                raise ConfigError(
                    f'{key}.{side}: {type(head).__name__} has {head.prior_generator.num_base_priors} anchors per cell '
                    'and level; expected 1.'
                )
        for name, ours, theirs in (
            ('reg_max', student.reg_max, teacher.reg_max),
            ('strides', student.prior_generator.strides, teacher.prior_generator.strides),
            ('center_offset', *(head.prior_generator.center_offset for head in (student, teacher))),
        ):
            if ours != theirs:
                raise ConfigError(
                    f'{key}: the student has {name}={ours}, the teacher {name}={theirs}; expected the same, or their '
                    'distributions mean different distances.'
                )
        if self.kd and student.num_classes != teacher.num_classes:
            raise ConfigError(
                f'{key}: the student has {student.num_classes} classes, the teacher {teacher.num_classes}; expected '
                'the same, or adapter.kd=False to distil the boxes alone.'
            )
        self.reg_max, self.num_classes = student.reg_max, student.num_classes
        if self.topk is None:
            self.topk = getattr(getattr(student, 'assigner', None), 'topk', 9)

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        self.key = key
        if not self.reads_boxes:
            raise ConfigError(f"{key}.student: found {self.student_tap.text!r}, expected 'bbox_head[1]'.")
        self.notes = [f'4 sides of {self.reg_max + 1} bins']
        self(student, teacher, context)

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        anchors, labels, weights = self._targets(context.get('targets'))
        ours, theirs = levels_of(student, f'{self.key}.student'), levels_of(teacher, f'{self.key}.teacher')
        if not len(ours) == len(theirs) == len(labels):
            raise ConfigError(
                f'{self.key}: the heads have {len(ours)} and {len(theirs)} levels, the targets {len(labels)}; expected '
                'as many.'
            )
        scores = dict(cls_student=levels_of(context['cls_student'], f'{self.key}.inputs.cls_student'))
        if self.kd:
            scores['cls_teacher'] = levels_of(context['cls_teacher'], f'{self.key}.inputs.cls_teacher')
        positive = [((level >= 0) & (level < self.num_classes)).flatten().nonzero()[:, 0] for level in labels]
        extras: dict[str, Any] = {}
        if self.normalise:
            best = [s.detach().sigmoid().amax(1).flatten()[p].sum() for s, p in zip(scores['cls_student'], positive)]
            extras['avg_factor'] = reduce_mean(torch.stack(best).sum()).clamp(min=1)
        if self.region:
            values = self._values(anchors, weights, context['gt_bboxes'])
        pairs = []
        for level, (s, t) in enumerate(zip(ours, theirs)):
            check_same(s, t, f'box distributions of level {level}', self.key)
            found = dict(extras, pos_inds=positive[level], **{name: maps[level] for name, maps in scores.items()})
            if self.region:
                value = values[level].flatten()
                found['vlr_inds'] = value.nonzero()[:, 0]
                found['vlr_value'] = value[found['vlr_inds']]
            pairs.append(Pair(s, t, found))
        return pairs

    def _values(self, anchors: list[Tensor], weights: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
        """The worth of all anchors, per level (B, n); anchors that the student's head ignores have none."""
        sizes = [level.shape[1] for level in anchors]
        anchors, counted = torch.cat(anchors, 1), torch.cat(weights, 1) > 0
        values = anchors.new_zeros(counted.shape)
        for value, priors, inside, truth in zip(values, anchors, counted, boxes):
            kept = [int(level.sum()) for level in inside.split(sizes)]
            value[inside] = valuable_region(priors[inside], kept, truth.to(priors), self.topk, self.gamma)
        return list(values.split(sizes, 1))

    def _targets(self, targets: Any) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Anchors, labels and label weights per level, from GFL's targets.

        Raises:
            ConfigError: If these are no such targets.
        """
        is_gfl = isinstance(targets, (list, tuple)) and len(targets) == 6
        if not is_gfl or not all(isinstance(part, list) for part in targets[:5]) or targets[0][0].shape[-1] != 4:
            raise ConfigError(
                f"{self.key}.inputs.targets: expected 'bbox_head.get_targets()' of a GFL-type head: anchors, labels, "
                f'label weights, box targets and weights per level, and a count; found {type(targets).__name__}'
                + (f' of {len(targets)}' if isinstance(targets, (list, tuple)) else '')
                + '.'
            )
        return targets[0], targets[1], targets[2]
