"""Dense heads of any layout as rows, chosen by the student's assignment or by the teacher's confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean
from kd_det.registry import MODELS

from .base import Adapter, Pair
from .rows import check_same, flatten_anchors, paired_levels

_SELECT = ('assigned', 'confident', 'all')
_NORMALIZE = ('positives', 'scores')


def _anchors_first(targets: Any) -> tuple[Sequence[Tensor], Sequence[Tensor] | None]:
    return targets[1], targets[2]


def _labels_first(targets: Any) -> tuple[Sequence[Tensor], Sequence[Tensor] | None]:
    return targets[0], targets[1]


def _labels_alone(targets: Any) -> tuple[Sequence[Tensor], Sequence[Tensor] | None]:
    return targets[0], None


#: Labels and their weights, level by level, in what ``get_targets`` of these classes of MMDetection returns. Heads that
#: inherit the method are read alike; all others (PAA, VFNet, …) return something else, or have no such method.
_READERS: dict[str, Callable[[Any], tuple[Sequence[Tensor], Sequence[Tensor] | None]]] = {
    'AnchorHead': _labels_first,
    'ATSSHead': _anchors_first,
    'GFLHead': _anchors_first,
    'RTMDetHead': _anchors_first,
    'FCOSHead': _labels_alone,
    'CondInstBboxHead': _labels_alone,
}


@MODELS.register_module()
class DenseRows(Adapter):
    """Class scores of a dense head (anchors or points) as rows (N, K) of one pair, all levels together.

    The term's taps read ``bbox_head[0]``. Which rows:

    - ``'assigned'``: the student's foreground, by its own assignment; of every head whose assignment can be read:
      RetinaNet, SSD and other plain anchor heads, ATSS, GFL, RTMDet, FCOS. The targets are read by themselves.
    - ``'confident'``: where the teacher's highest score is above ``score_thr``, at most ``topk`` of each image.
    - ``'all'``: all of them. Never divide their sum by their number: easy background would drown the objects.

    Extras: ``labels`` (N,): the student's own, K where there is no object, or for ``'confident'`` the teacher's best
    class (and for ``'all'`` without targets none at all); ``label_weights`` (N,): the student's own, 0 for rows that it
    leaves out, or else 1; ``avg_factor``: see ``normalize``, averaged over all processes, at least 1. For soft-max
    heads, whose last column is the background, K counts the classes without it.

    Student and teacher must have the same layout: as many levels, strides, anchors and classes.

    Args:
        select: ``'assigned'``, ``'confident'`` or ``'all'``.
        score_thr: The teacher's lowest score of ``'confident'`` rows.
        topk: Their highest number per image; None for no limit.
        normalize: What ``avg_factor`` counts: the student's ``'positives'``, or the sum of the teacher's highest
            ``'scores'`` of the selected rows. None: positives for ``'assigned'``, otherwise scores.

    Raises:
        ConfigError: For an unknown choice.
    """

    def __init__(
        self,
        select: str = 'assigned',
        score_thr: float = 0.05,
        topk: int | None = None,
        normalize: str | None = None,
    ) -> None:
        super().__init__()
        normalize = normalize or ('positives' if select == 'assigned' else 'scores')
        for name, value, choices in (('select', select, _SELECT), ('normalize', normalize, _NORMALIZE)):
            if value not in choices:
                raise ConfigError(
                    f'adapter.{name}: found {value!r}, expected one of {", ".join(map(repr, choices))}.'
                    f'{did_you_mean(str(value), choices)}'
                )
        if topk is not None and topk < 1:
            raise ConfigError(f'adapter.topk: found {topk!r}, expected a number of rows per image, or None.')
        self.select, self.score_thr, self.topk, self.normalize = select, score_thr, topk, normalize

    @property
    def needs_targets(self) -> bool:
        """Whether the student's assignment is read."""
        return self.select == 'assigned' or self.normalize == 'positives'

    @property
    def head(self) -> str:
        """The path of the head, such as ``'bbox_head'``."""
        return self.student_tap.path.split('.')[0]

    @property
    def inputs(self) -> dict[str, str]:
        """The student's targets, where they are needed."""
        return dict(targets=f'{self.head}.get_targets()') if self.needs_targets else {}

    def bind(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        """Learn from the student's head how its scores and targets are laid out.

        Raises:
            ConfigError: If it is no dense head, or its assignment cannot be read and is needed.
        """
        super().bind(student, teacher, key)
        head = getattr(student, self.head, None)
        if not isinstance(getattr(head, 'cls_out_channels', None), int):
            raise ConfigError(
                f'{key}.student: {self.student_tap.text!r} is not in a dense head; expected a tap such as '
                "'bbox_head[0]' of a one-stage detector. For a second stage use dict(type='kd_det.RoIRows')."
            )
        for side, network in (('student', student), ('teacher', teacher)):
            self._refuse_no_logits(getattr(network, self.head, None), f'{key}.{side}')
        self.columns, self.classes = head.cls_out_channels, head.num_classes
        self.is_sigmoid = getattr(head, 'use_sigmoid_cls', True)
        self._read = assignment_reader(head)
        if self.needs_targets and self._read is None:
            raise ConfigError(
                f'{key}.adapter: select={self.select!r}, normalize={self.normalize!r} need the assignment of the '
                f'student, and that of {type(head).__name__} is not one of those that can be read '
                f"({', '.join(_READERS)}); expected select='confident' or 'all', with normalize='scores'."
            )

    @staticmethod
    def _refuse_no_logits(head: nn.Module | None, key: str) -> None:
        """Refuse heads whose scores are no sigmoid or soft-max of what the tap reads.

        Raises:
            ConfigError: If the head gives probabilities, or multiplies by an objectness of its own.
        """
        why = None
        if getattr(getattr(head, 'loss_cls', None), 'activated', False):
            why = 'gives probabilities, no logits'
        elif hasattr(head, 'loss_obj') or hasattr(head, 'loss_conf'):
            why = 'multiplies its class scores by an objectness'
        if why:
            raise ConfigError(
                f'{key}: {type(head).__name__} {why}, so that its class scores alone say nothing about a row; expected '
                "a tap such as 'neck'."
            )

    def check_modules(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        for name, what in (('cls_out_channels', 'class scores'), ('use_sigmoid_cls', 'use_sigmoid')):
            ours, theirs = getattr(student, name, None), getattr(teacher, name, None)
            if None not in (ours, theirs) and ours != theirs:
                raise ConfigError(
                    f'{key}: {type(student).__name__} has {what} {ours}, {type(teacher).__name__} {theirs}; expected '
                    'the same. Train the teacher on the same classes, or distil on the neck.'
                )

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        self.key = key
        self.notes = [f'rows, {self.select}']
        self(student, teacher, context)

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        key = getattr(self, 'key', 'distill')
        ours, theirs = paired_levels(student, teacher, key)
        for level, (s, t) in enumerate(zip(ours, theirs)):
            check_same(s, t, f'level {level} of the heads', key)
            if s.dim() != 4 or s.shape[1] % self.columns:
                raise ConfigError(
                    f'{key}.student: level {level} is {tuple(s.shape)}; expected maps (images, anchors x '
                    f'{self.columns} classes, H, W).'
                )
        sizes = [s.shape[1] // self.columns * s.shape[2] * s.shape[3] for s in ours]
        s_rows, t_rows = (flatten_anchors(levels, sizes, key) for levels in (ours, theirs))
        labels, weights = self._targets(context.get('targets'), sizes, t_rows, key)
        chosen, number = None, None
        if self.needs_targets:
            foreground = (labels >= 0) & (labels < self.classes) & (weights > 0)
            number = foreground.sum().to(t_rows.dtype)
            chosen = foreground if self.select == 'assigned' else None
        if self.select == 'confident' or self.normalize == 'scores':
            scores, best = self._scores(t_rows)
            if self.select == 'confident':
                chosen = self._confident(scores)
                labels, weights = best, torch.ones_like(scores)
            if self.normalize == 'scores':
                number = (scores if chosen is None else scores * chosen).sum()
        all_reduce(number, op='mean')
        rows = dict(student=s_rows, teacher=t_rows, label_weights=weights)
        if labels is not None:
            rows['labels'] = labels
        rows = {name: x.flatten(0, 1) if chosen is None else x[chosen] for name, x in rows.items()}
        return [Pair(rows.pop('student'), rows.pop('teacher'), dict(rows, avg_factor=number.clamp(min=1)))]

    def _scores(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The highest score of each row (B, P, K) and its class, both (B, P); the background is no class."""
        logits = rows.detach().float()
        probabilities = logits.sigmoid() if self.is_sigmoid else logits.softmax(-1)
        scores, best = probabilities[..., : self.classes].max(-1)
        return scores, best

    def _confident(self, scores: Tensor) -> Tensor:
        """Which rows the teacher is sure of, (B, P)."""
        chosen = scores > self.score_thr
        if self.topk is not None and self.topk < scores.shape[1]:
            top = scores.topk(self.topk, dim=1).indices
            chosen = chosen & torch.zeros_like(chosen).scatter_(1, top, True)
        return chosen

    def _targets(self, targets: Any, sizes: list[int], rows: Tensor, key: str) -> tuple[Tensor | None, Tensor]:
        """Labels, where they are known, and label weights, of shape (B, P)."""
        images = rows.shape[0]
        ones = rows.new_ones(rows.shape[:2])
        if targets is None:
            return None, ones
        if self._read is None:
            raise ConfigError(f'{key}.inputs.targets: the targets of this head cannot be read; drop them.')
        labels, weights = self._read(targets)
        found, expected = [level.numel() for level in labels], [images * size for size in sizes]
        if found != expected:
            raise ConfigError(
                f'{key}.inputs.targets: labels of {found} rows per level; expected {expected}, as '
                f'{self.student_tap.text!r} has them.'
            )
        labels = torch.cat([level.reshape(images, -1) for level in labels], dim=1)
        if weights is None:
            return labels, ones
        return labels, torch.cat([level.reshape(images, -1) for level in weights], dim=1)


def assignment_reader(head: nn.Module) -> Callable[[Any], tuple[Sequence[Tensor], Sequence[Tensor] | None]] | None:
    """What takes labels and label weights, level by level, out of the targets of a head; None if that is not known.

    Args:
        head: A dense head of MMDetection.
    """
    for cls in type(head).__mro__:
        if 'get_targets' in vars(cls):
            return _READERS.get(cls.__name__)
    return None
