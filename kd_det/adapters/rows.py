"""Heads as rows: one row per anchor, or per RoI, with the student's own targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS
from kd_det.taps import Tap, levels_of

from .base import Adapter, Pair

_NAMES = ('labels', 'label_weights', 'bbox_targets', 'bbox_weights')


def extracted_rois(extracted: Any) -> Tensor:
    """The sampled RoIs (N, 5) in what a RoI extractor was given (``roi_head.bbox_roi_extractor@in``)."""
    if isinstance(extracted, list):  # run again by a mask head that shares the extractor
        extracted = extracted[0]
    return extracted[1]


def anchor_targets(targets: Any, key: str) -> dict[str, Any]:
    """The targets of an anchor head by name, over all levels.

    Args:
        targets: What mmdet's ``AnchorHead.get_targets`` returned: lists over levels of ``labels`` (B, n),
            ``label_weights`` (B, n), ``bbox_targets`` (B, n, 4), ``bbox_weights`` (B, n, 4), and ``avg_factor``.
        key: The config key to blame.

    Returns:
        ``labels`` and ``label_weights`` (B, P), ``bbox_targets`` and ``bbox_weights`` (B, P, 4), ``avg_factor``,
        and ``sizes``, the number of anchors of each level.

    Raises:
        ConfigError: If there are no such targets, or another head's.
    """
    if not isinstance(targets, (list, tuple)) or len(targets) < 5 or not all(isinstance(t, list) for t in targets[:4]):
        raise ConfigError(
            f"{key}.inputs.targets: expected inputs=dict(targets='bbox_head.get_targets()') of an anchor head "
            f'(RetinaNet, SSD, RPN, …) with labels, weights, box targets and weights per level; found '
            f'{type(targets).__name__}' + (f' of {len(targets)}' if isinstance(targets, (list, tuple)) else '') + '.'
        )
    result: dict[str, Any] = {name: torch.cat(list(value), dim=1) for name, value in zip(_NAMES, targets)}
    if result['labels'].dim() != 2 or result['bbox_targets'].shape[-1] != 4:
        raise ConfigError(
            f'{key}.inputs.targets: labels {tuple(result["labels"].shape)} and box targets '
            f'{tuple(result["bbox_targets"].shape)}; expected (images, anchors) and (images, anchors, 4) of an anchor '
            'head.'
        )
    result['avg_factor'] = targets[4]
    result['sizes'] = [level.shape[1] for level in targets[0]]
    return result


def flatten_anchors(levels: list[Tensor], sizes: list[int], key: str) -> Tensor:
    """Dense predictions as one row per anchor.

    Args:
        levels: Maps of shape (B, A·K, H, W).
        sizes: The number of anchors A·H·W of each level.
        key: The config key to blame.

    Returns:
        Shape (B, P, K) with P the sum of ``sizes``, in the order of mmdet's targets.

    Raises:
        ConfigError: If the maps do not have that many anchors.
    """
    rows = []
    for level, (maps, size) in enumerate(zip(levels, sizes)):
        cells = maps.shape[-2] * maps.shape[-1]
        anchors, rest = divmod(size, cells)
        if len(levels) != len(sizes) or rest or not anchors or maps.shape[1] % anchors:
            raise ConfigError(
                f'{key}: level {level} is {tuple(maps.shape)} and its targets count {size} anchors; expected '
                '(images, anchors x columns, H, W) with the same anchors.'
            )
        rows.append(maps.permute(0, 2, 3, 1).reshape(maps.shape[0], size, maps.shape[1] // anchors))
    return torch.cat(rows, dim=1)


def paired_levels(student: Any, teacher: Any, key: str) -> tuple[list[Tensor], list[Tensor]]:
    """The levels of two heads.

    Raises:
        ConfigError: If they have not as many.
    """
    ours, theirs = levels_of(student, f'{key}.student'), levels_of(teacher, f'{key}.teacher')
    if len(ours) != len(theirs):
        raise ConfigError(f'{key}: the heads have {len(ours)} and {len(theirs)} levels; expected as many.')
    return ours, theirs


def second_stage(tap: Tap | None) -> str:
    """The path of the box head that a tap reads: ``'roi_head.bbox_head'``, or a stage of a cascade, or the only one."""
    parts = tap.path.split('.') if tap is not None else []
    return '.'.join(['roi_head', 'bbox_head', *(part for part in parts[2:3] if part.isdigit())])


def check_same(student: Tensor, teacher: Tensor, what: str, key: str) -> None:
    """Refuse rows of another layout.

    Raises:
        ConfigError: If the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ConfigError(
            f'{key}: {what} have shape {tuple(student.shape)} in the student and {tuple(teacher.shape)} in the '
            'teacher. Expected equal shapes: the same number of classes, the same anchors and the same strides. Train '
            'the teacher on the same classes, or distil on the neck.'
        )


def check_boxes(student: nn.Module, teacher: nn.Module, key: str) -> None:
    """Refuse two heads whose box regressions or targets do not mean the same.

    Raises:
        ConfigError: If targets are decoded boxes, or the heads encode boxes differently.
    """
    if getattr(student, 'reg_decoded_bbox', False):
        raise ConfigError(
            f'{key}.student: {type(student).__name__} has reg_decoded_bbox=True, so that its targets are boxes and its '
            'predictions are not; expected reg_decoded_bbox=False (an L1 loss) for a term on box regression.'
        )
    codes = [_code(getattr(head, 'bbox_coder', None)) for head in (student, teacher)]
    if codes[0] != codes[1]:
        raise ConfigError(
            f'{key}: the student encodes boxes with {codes[0]}, the teacher with {codes[1]}; expected the same coder, '
            'means and stds (of a cascade: the stage that has them).'
        )


def _code(coder: Any) -> str:
    numbers = {name: tuple(getattr(coder, name)) for name in ('means', 'stds') if hasattr(coder, name)}
    return f'{type(coder).__name__}({", ".join(f"{name}={value}" for name, value in numbers.items())})'


@MODELS.register_module()
class AnchorRows(Adapter):
    """A dense anchor head (RetinaNet, RPN, SSD) as one row per anchor, with the student's own targets.

    The term's taps read class scores (``bbox_head[0]``) or box regressions (``bbox_head[1]``); the targets of the
    student's head are read by themselves. The pair has rows (B·P, K) or (B·P, 4) and the extras
    ``labels``, ``label_weights`` (B·P,), ``bbox_targets``, ``bbox_weights`` (B·P, 4), ``avg_factor`` (what the head
    divides its own losses by).
    """

    runs_teacher = False

    @property
    def inputs(self) -> dict[str, str]:
        """The student's targets."""
        return dict(targets=f'{self.student_tap.path.split(".")[0]}.get_targets()')

    def check_modules(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        if self.reads_boxes:
            check_boxes(student, teacher, key)

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        self.key = key
        self.notes = ['rows of anchors']
        self(student, teacher, context)

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        key = getattr(self, 'key', 'distill')
        targets = anchor_targets(context.get('targets'), key)
        sizes = targets.pop('sizes')
        ours, theirs = paired_levels(student, teacher, key)
        for level, (s, t) in enumerate(zip(ours, theirs)):
            check_same(s, t, f'level {level} of the heads', key)
        rows = [flatten_anchors(levels, sizes, key).flatten(0, 1) for levels in (ours, theirs)]
        extras = {name: targets[name].flatten(0, 1) for name in _NAMES}
        return [Pair(*rows, dict(extras, avg_factor=targets['avg_factor']))]


@MODELS.register_module()
class RoIRows(Adapter):
    """A second stage as one row per RoI: both networks on the student's sampled RoIs.

    The term's taps read ``roi_head.bbox_head[0]`` (class scores, background last) or ``roi_head.bbox_head[1]`` (box
    regressions), of a cascade those of one stage (``roi_head.bbox_head.0[0]``); the targets of that stage of the
    student are read by themselves. The pair has rows (N, K + 1), or (N, 4) with the deltas of each RoI's own class
    picked out of a class-wise head, and the extras ``labels``, ``label_weights`` (N,), ``bbox_targets``,
    ``bbox_weights`` (N, 4) and ``avg_factor``: as in mmdet, all rows for boxes, the rows with weight for scores.
    """

    @property
    def inputs(self) -> dict[str, str]:
        """The student's targets, of the same stage of a cascade."""
        return dict(targets=f'{second_stage(self.student_tap)}.get_targets()')

    def bind(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        super().bind(student, teacher, key)
        if not hasattr(student, 'roi_head'):
            raise ConfigError(
                f'{key}.adapter: RoIRows needs a two-stage student, and {type(student).__name__} has no RoIs; expected '
                "adapter=dict(type='kd_det.DenseRows') on 'bbox_head[0]'."
            )

    def check_modules(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        if self.reads_boxes:
            check_boxes(student, teacher, key)

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        self.key = key
        self.notes = ['rows of RoIs']
        self(student, teacher, context)

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        key = getattr(self, 'key', 'distill')
        targets = context.get('targets')
        if (
            not isinstance(targets, (list, tuple))
            or len(targets) != 4
            or not all(isinstance(t, Tensor) for t in targets)
        ):
            raise ConfigError(
                f"{key}.inputs.targets: expected inputs=dict(targets='roi_head.bbox_head.get_targets()') of a second "
                f'stage (labels, weights, box targets, weights); found {type(targets).__name__}.'
            )
        extras: dict[str, Any] = dict(zip(_NAMES, targets))
        if not isinstance(student, Tensor) or not isinstance(teacher, Tensor):
            raise ConfigError(
                f'{key}: the taps give {type(student).__name__} and {type(teacher).__name__}; expected one tensor of '
                "rows, such as 'roi_head.bbox_head[0]'."
            )
        labels = extras['labels']
        if self.reads_boxes:
            student, teacher = self._of_class(student, labels), self._of_class(teacher, labels)
            extras['avg_factor'] = max(1, student.shape[0])
        else:
            extras['avg_factor'] = (extras['label_weights'] > 0).sum().clamp(min=1)
        check_same(student, teacher, 'the rows', key)
        return [Pair(student, teacher, extras)]

    @staticmethod
    def _of_class(rows: Tensor, labels: Tensor) -> Tensor:
        """The four deltas of each row's class; background rows get those of the first class and weigh nothing."""
        if rows.shape[1] == 4:
            return rows
        rows = rows.reshape(rows.shape[0], -1, 4)
        index = torch.where(labels < rows.shape[1], labels, 0)
        return rows[torch.arange(rows.shape[0], device=rows.device), index]
