"""The teacher's batch norms before the tapped activations, from which OFD knows its margins."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_det.registry import MODELS
from kd_det.taps import levels_of

from .align import Align
from .base import Guest, Pair

#: Parts of a residual block that are no part of the branch whose norm comes before the activation.
_SHORTCUTS = ('downsample', 'shortcut')


class _Watch:
    """Finds the layer that ran before the last activation inside a module, in any number of forwards."""

    def __init__(self, module: nn.Module) -> None:
        from kd_det.taps.recorders import activations_in  # it imports mmrazor

        self.layer: nn.Module | None = None
        self._latest: nn.Module | None = None
        self._handles = [module.register_forward_pre_hook(self._begin)]
        activations = set(activations_in(module))
        for name, part in module.named_modules():
            if part in activations:
                self._handles.append(part.register_forward_pre_hook(self._activated))
            elif not set(_SHORTCUTS) & set(name.split('.')) and any(True for _ in part.parameters(recurse=False)):
                self._handles.append(part.register_forward_hook(self._ran))

    def _begin(self, *args: Any) -> None:
        self._latest = None

    def _ran(self, module: nn.Module, *args: Any) -> None:
        self._latest = module

    def _activated(self, *args: Any) -> None:
        self.layer = self._latest

    def end(self) -> _BatchNorm | None:
        """The batch norm with weight and bias that ran there, if it is one. Stops watching."""
        for handle in self._handles:
            handle.remove()
        is_norm = isinstance(self.layer, _BatchNorm) and self.layer.affine
        return self.layer if is_norm else None


@MODELS.register_module()
class TeacherNorms(Align):
    """Pairs the levels as :class:`Align`, with weight and bias of the teacher's batch norm before each tap.

    For taps before an activation (``backbone.layer3@pre``). The norm is the last layer with weights that ran before
    that activation in the dry forward; in a residual block that is the last norm of the branch, not the one of the
    shortcut, as in the code of OFD's authors. Extras: ``bn_weight`` and ``bn_bias`` (C_t,), None on a level without
    such a norm (group norm, no norm), and absent where no level has one, so that the loss measures its margins.

    Args:
        resize: As in :class:`Align`.
    """

    def __init__(self, resize: str = 'student') -> None:
        super().__init__(resize)
        self._watches: list[_Watch | None] = []
        self._norms: list[Guest | None] = []

    def bind(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        super().bind(student, teacher, key)
        self._watches = [_Watch(tap.module(teacher)) if tap.kind == 'pre' else None for tap in self.teacher_taps]

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        super().prepare(student, teacher, context, key, same_channels)
        found = [watch and watch.end() for watch in self._watches]
        levels = levels_of(teacher)
        if len(found) == 1:  # a module that runs once per level
            found *= len(levels)
        elif len(found) != len(levels):
            found = [None] * len(levels)
        fits = [norm if norm is not None and len(norm.weight) == t.shape[1] else None for norm, t in zip(found, levels)]
        self._watches, self._norms = [], [norm and Guest(norm) for norm in fits]
        for level, norm in enumerate(fits):
            note = 'margin measured' if norm is None else f"margin from the teacher's {type(norm).__name__}"
            self.notes[level] = ', '.join(part for part in (self.notes[level], note) if part != '-')

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        pairs = super().forward(student, teacher, context)
        if any(self._norms):
            for pair, norm in zip(pairs, self._norms, strict=True):
                pair.extras['bn_weight'] = norm and norm.module.weight.detach()
                pair.extras['bn_bias'] = norm and norm.module.bias.detach()
        return pairs
