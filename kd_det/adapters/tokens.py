"""The tokens of a transformer encoder as maps again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from kd_det.errors import ConfigError
from kd_det.registry import MODELS
from kd_det.taps import levels_of
from kd_det.taps.tap import describe

from .align import Align
from .base import Adapter, Pair


@MODELS.register_module()
class TokenMaps(Adapter):
    """What a DETR-type encoder returns, one row of tokens, as one map per level: for every loss on feature maps.

    The term's taps read the encoder (``encoder``), tokens (B, sum of H·W, C) in the order of the maps that went in;
    their sizes are read from the necks. Then levels are aligned as by :class:`~kd_det.adapters.Align`: a 1×1
    convolution where widths differ, bilinear resizing where sizes do. Works for DETR (one level), Deformable DETR, DINO
    and all that share their encoder; gradient checkpointing of encoder layers does not disturb it.

    Args:
        resize: See :class:`~kd_det.adapters.Align`.
        student_levels: Which of the student's levels to compare, by number; None: all.
        teacher_levels: Which of the teacher's. DINO with five scales begins one level earlier than with four:
            ``teacher_levels=[1, 2, 3, 4]``.
    """

    runs_teacher = False

    def __init__(
        self,
        resize: str = 'student',
        student_levels: Sequence[int] | None = None,
        teacher_levels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.align = Align(resize)
        self.levels = dict(student=student_levels, teacher=teacher_levels)

    @property
    def inputs(self) -> dict[str, str]:
        return dict(maps_student='neck', maps_teacher='teacher:neck')

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        self.key = key
        ours, theirs = self._maps('student', student, context), self._maps('teacher', teacher, context)
        if len(ours) != len(theirs):
            raise ConfigError(
                f'{key}: the encoder of the student has {len(ours)} levels, that of the teacher {len(theirs)}; '
                'expected as many. Choose with adapter.student_levels and adapter.teacher_levels, such as [0, 1, 2].'
            )
        self.align.prepare(ours, theirs, context, key, same_channels)
        self.notes = ['tokens to maps' + ('' if note == '-' else f', {note}') for note in self.align.notes]

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        return self.align(self._maps('student', student, context), self._maps('teacher', teacher, context), context)

    def _maps(self, side: str, tokens: Any, context: dict[str, Any]) -> list[Tensor]:
        """The chosen levels of one side, (B, C, H, W) each."""
        key = f'{self.key}.{side}'
        if not isinstance(tokens, Tensor) or tokens.dim() != 3:
            raise ConfigError(f"{key}: found {describe(tokens)}, expected the tokens (B, N, C) of 'encoder'.")
        sizes = [tuple(level.shape[-2:]) for level in levels_of(context[f'maps_{side}'], f'{key}, maps')]
        maps = tokens_to_maps(tokens, sizes, key)
        chosen = self.levels[side]
        if chosen is None:
            return maps
        if not len(chosen) or not all(0 <= level < len(maps) for level in chosen):
            raise ConfigError(
                f'{self.key}.adapter.{side}_levels: found {list(chosen)}, expected numbers from 0 to {len(maps) - 1}.'
            )
        return [maps[level] for level in chosen]


def tokens_to_maps(tokens: Tensor, sizes: Sequence[tuple[int, int]], key: str = 'tap') -> list[Tensor]:
    """Cut a row of tokens into maps.

    Args:
        tokens: Shape (B, N, C).
        sizes: Height and width of each level, in order; N is the sum of their products.
        key: The config key to blame.

    Returns:
        Views of shape (B, C, H, W).

    Raises:
        ConfigError: If there are more or fewer tokens.
    """
    counts = [height * width for height, width in sizes]
    if sum(counts) != tokens.shape[1]:
        raise ConfigError(
            f'{key}: {tokens.shape[1]} tokens, but the maps ({", ".join(f"{h}x{w}" for h, w in sizes)}) have '
            f"{sum(counts)} cells; expected the tap 'encoder', and the maps that go into it as "
            "inputs=dict(maps_student='neck', maps_teacher='teacher:neck')."
        )
    return [part.transpose(1, 2).unflatten(2, size) for part, size in zip(tokens.split(counts, 1), sizes)]
