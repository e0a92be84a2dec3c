"""Both outputs of an SSD head at once, for the MultiBox loss with a teacher."""

from __future__ import annotations

from typing import Any

from torch import nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS
from kd_det.taps import levels_of

from .base import Adapter, Pair
from .rows import anchor_targets, check_boxes, check_same, flatten_anchors


@MODELS.register_module()
class MultiBox(Adapter):
    """An SSD head as ``dict(loc=(B, P, 4), conf=(B, P, K))`` for :class:`~kd_det.losses.MultiBoxKDLoss`.

    The term's taps read the whole head (``bbox_head``) and its ``inputs`` the targets
    (``inputs=dict(targets='bbox_head.get_targets()')``). Extras: ``loc_t`` (B, P, 4), ``conf_t`` and ``conf_weights``
    (B, P). Teacher and student need the same priors.
    """

    def check_modules(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        check_boxes(student, teacher, key)

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        self.key = key
        self.notes = ['loc and conf of all priors']
        self(student, teacher, context)

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        key = getattr(self, 'key', 'distill')
        targets = anchor_targets(context.get('targets'), key)
        sides = []
        for side, reading in (('student', student), ('teacher', teacher)):
            if not isinstance(reading, (list, tuple)) or len(reading) != 2:
                raise ConfigError(f"{key}.{side}: expected the whole head, such as 'bbox_head' (scores and boxes).")
            sides.append([levels_of(part, f'{key}.{side}') for part in reading])
        for part, name in enumerate(('class scores', 'boxes')):
            for level, (s, t) in enumerate(zip(sides[0][part], sides[1][part])):
                check_same(s, t, f'{name} of level {level}', key)
        pair = [
            dict(loc=flatten_anchors(boxes, targets['sizes'], key), conf=flatten_anchors(scores, targets['sizes'], key))
            for scores, boxes in sides
        ]
        extras = dict(loc_t=targets['bbox_targets'], conf_t=targets['labels'], conf_weights=targets['label_weights'])
        return [Pair(*pair, extras)]
