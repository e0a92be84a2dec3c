"""Connectors of mmrazor, or any other module, between the levels and the loss."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from kd_det.compat import import_mmrazor
from kd_det.errors import ConfigError
from kd_det.registry import MODELS
from kd_det.taps import levels_of

from .base import Adapter, Pair

#: Options that mmrazor's connectors have for channels: of the map that they take, and of the map that they give.
_TAKES, _GIVES = ('in_channels', 'in_channel'), ('out_channels', 'out_channel')


@MODELS.register_module()
class Connectors(Adapter):
    """Passes each level through a module of its own, on either side, as mmrazor's distillers do.

    For losses that compare what a connector gives, such as ``mmrazor.FBKDLoss``::

        adapter=dict(
            type='kd_det.Connectors',
            student=dict(type='mmrazor.FBKDStudentConnector', reduction=4, sub_sample=True),
            teacher=dict(type='mmrazor.FBKDTeacherConnector', reduction=4, sub_sample=True))

    Channels are found: ``in_channels`` (or ``in_channel``) is the width of the map, ``student_channels`` and
    ``teacher_channels`` those of both, ``out_channels`` (or ``out_channel``) the other side's width. A config that sets
    one keeps it. Sizes stay as they are. All connectors are trained with the student, the teacher's too, as in mmrazor.

    Args:
        student: Config of the module for the student's levels, or a list of one per level; None: the maps as they are.
        teacher: Likewise for the teacher's.
    """

    runs_teacher = False

    def __init__(
        self,
        student: dict[str, Any] | Sequence[dict[str, Any]] | None = None,
        teacher: dict[str, Any] | Sequence[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.configs = dict(student=student, teacher=teacher)
        self.connectors = nn.ModuleDict(dict(student=nn.ModuleList(), teacher=nn.ModuleList()))

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        ours, theirs = levels_of(student, f'{key}.student'), levels_of(teacher, f'{key}.teacher')
        if len(ours) != len(theirs):
            raise ConfigError(f'{key}: the taps give {len(ours)} and {len(theirs)} levels; expected as many.')
        self.notes = []
        for level, (s, t) in enumerate(zip(ours, theirs)):
            widths = dict(student=s.shape[1], teacher=t.shape[1])
            made = [
                self._make(side, other, widths, level, len(ours), f'{key}.adapter.{side}')
                for side, other in (('student', 'teacher'), ('teacher', 'student'))
            ]
            for side, module in zip(widths, made):
                self.connectors[side].append(module)
            names = [type(module).__name__ for module in made if not isinstance(module, nn.Identity)]
            self.notes.append(', '.join(names) or '-')

    def _make(self, side: str, other: str, widths: dict[str, int], level: int, levels: int, key: str) -> nn.Module:
        cfg = self.configs[side]
        if cfg is None:
            return nn.Identity()
        if isinstance(cfg, (list, tuple)):
            if len(cfg) != levels:
                raise ConfigError(f'{key}: found {len(cfg)} configs for {levels} levels; expected one per level.')
            cfg = cfg[level]
        if not isinstance(cfg, dict) or 'type' not in cfg:
            raise ConfigError(f"{key}: found {cfg!r}, expected such as dict(type='mmrazor.ConvModuleConnector').")
        cfg = copy.deepcopy(dict(cfg))
        if isinstance(cfg['type'], str) and cfg['type'].startswith('mmrazor.'):
            import_mmrazor()
        kind = MODELS.get(cfg['type']) if isinstance(cfg['type'], str) else cfg['type']
        if kind is None:
            raise ConfigError(f'{key}.type: {cfg["type"]!r} is not registered.')
        found = {f'{name}_channels': width for name, width in widths.items()}
        found.update(dict.fromkeys(_TAKES, widths[side]), **dict.fromkeys(_GIVES, widths[other]))
        options = inspect.signature(kind.__init__).parameters
        try:
            module = MODELS.build({**{name: found[name] for name in found if name in options}, **cfg})
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f'{key}: {error}') from error
        if getattr(module, 'init_cfg', None):
            module.init_weights()
        return module

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        ours, theirs = self.connectors['student'], self.connectors['teacher']
        levels = zip(ours, theirs, levels_of(student), levels_of(teacher), strict=True)
        return [Pair(s(x), t(y), dict(level=level)) for level, (s, t, x, y) in enumerate(levels)]
