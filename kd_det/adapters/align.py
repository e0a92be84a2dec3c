"""The adapter of every term that names none: level by level, equal width, equal size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS
from kd_det.taps import levels_of

from .base import Adapter, Pair

_SIDES = ('student', 'teacher', 'none')


@MODELS.register_module()
class Align(Adapter):
    """Pairs the levels; where widths differ a 1×1 convolution maps the student's to the teacher's.

    The convolution (with bias) appears only on levels where channels differ, and only if the loss needs equal widths
    and does not align by itself. Maps of different height or width are resized bilinearly (``align_corners=False``):
    the student's to the teacher's size, or the other way round. Class scores and box regressions are never converted:
    their layouts must be equal.

    Args:
        resize: ``'student'`` resizes the student's map to the teacher's size, ``'teacher'`` the teacher's to the
            student's, ``'none'`` refuses maps that differ.
        norm: Normalise every channel of both maps over batch and positions, after the convolution and the resizing:
            batch norm by the batch's own statistics, without weights. For losses that mix channels of different
            scale, or a student's and a teacher's. Statistics are per process and include padding.
        eps: Added to the variance by ``norm``.
    """

    runs_teacher = False

    def __init__(self, resize: str = 'student', norm: bool = False, eps: float = 1e-3) -> None:
        super().__init__()
        if resize not in _SIDES:
            raise ConfigError(f'adapter.resize: found {resize!r}, expected one of {", ".join(map(repr, _SIDES))}.')
        self.resize, self.norm, self.eps = resize, norm, eps
        self.convs = nn.ModuleList()
        #: Set by the plan for readings of a head's outputs.
        self.layout_is_fixed = False

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        ours, theirs = levels_of(student, f'{key}.student'), levels_of(teacher, f'{key}.teacher')
        if len(ours) != len(theirs):
            raise ConfigError(
                f'{key}: the student tap gives {len(ours)} levels ({_shapes(ours)}), the teacher tap {len(theirs)} '
                f'({_shapes(theirs)}); expected as many. Select with a slice, such as '
                f'neck[0:{min(len(ours), len(theirs))}].'
            )
        convs, self.notes = [], []
        for level, (s, t) in enumerate(zip(ours, theirs)):
            if s.dim() != t.dim():
                raise ConfigError(
                    f'{key}: level {level} has shape {tuple(s.shape)} in the student and {tuple(t.shape)} in the '
                    'teacher; expected as many dimensions.'
                )
            if self.norm and s.dim() != 4:
                raise ConfigError(
                    f'{key}: adapter.norm is for maps (B, C, H, W); level {level} of the student has shape '
                    f'{tuple(s.shape)}. Drop norm=True.'
                )
            conv, note = nn.Identity(), []
            if self.layout_is_fixed or s.dim() != 4:
                if s.shape != t.shape:
                    raise ConfigError(
                        f'{key}: level {level} of the heads has shape {tuple(s.shape)} in the student and '
                        f'{tuple(t.shape)} in the teacher. Expected equal shapes: the same number of classes, the same '
                        'anchors and the same strides. Train the teacher on the same classes, or distil on the neck.'
                    )
            else:
                if same_channels and s.shape[1] != t.shape[1]:
                    conv = nn.Conv2d(s.shape[1], t.shape[1], 1)
                    note.append(f'1x1 {s.shape[1]}→{t.shape[1]}')
                if s.shape[2:] != t.shape[2:]:
                    if self.resize == 'none':
                        raise ConfigError(
                            f'{key}: level {level} measures {_size(s)} in the student and {_size(t)} in the teacher, '
                            "and adapter.resize is 'none'; expected 'student' or 'teacher'."
                        )
                    note.append(f'resize {self.resize}')
            note += ['norm'] if self.norm else []
            convs.append(conv)
            self.notes.append(', '.join(note) or '-')
        self.convs = nn.ModuleList(convs)

    def loss_options(self, index: int) -> dict[str, Any]:
        return dict(level=index, levels=len(self.convs))

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        ours, theirs = levels_of(student), levels_of(teacher)
        if not len(ours) == len(theirs) == len(self.convs):
            raise ConfigError(f'the taps gave {len(ours)} and {len(theirs)} levels; the plan saw {len(self.convs)}.')
        return [
            Pair(*map(self._normalised, self._same_size(conv(s), t)), dict(level=i))
            for i, (conv, s, t) in enumerate(zip(self.convs, ours, theirs))
        ]

    def _same_size(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        if s.dim() != 4 or s.shape[2:] == t.shape[2:]:
            return s, t
        if self.resize == 'teacher':
            return s, F.interpolate(t, s.shape[2:], mode='bilinear', align_corners=False)
        return F.interpolate(s, t.shape[2:], mode='bilinear', align_corners=False), t

    def _normalised(self, maps: Tensor) -> Tensor:
        if not self.norm:
            return maps
        variance, mean = torch.var_mean(maps, (0, 2, 3), correction=0, keepdim=True)
        return (maps - mean) * torch.rsqrt(variance + self.eps)


def _shapes(levels: list[Tensor]) -> str:
    return ', '.join('x'.join(map(str, level.shape[1:])) for level in levels)


def _size(level: Tensor) -> str:
    return 'x'.join(map(str, level.shape[2:]))
