"""The same distillation with mmrazor, to be timed beside ours; for terms on levels of the neck whose loss it has."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from kd_det.compat import import_mmrazor
from kd_det.errors import ConfigError

__all__ = ['KINDS', 'METHODS', 'razor_detector']

#: How mmrazor runs the teacher: as deep as its neck, or whole, with its losses.
KINDS = ('FpnTeacherDistill', 'SingleTeacherDistill')

#: Levels of a neck whose config does not tell, those of a RetinaNet.
_LEVELS = 5


Parts = tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]


def _plain(name: str, *options: str) -> Callable[..., Parts]:
    def parts(weight: float, channels: tuple[int, int], loss: dict[str, Any]) -> Parts:
        return dict(type=name, loss_weight=weight, **{key: loss[key] for key in options if key in loss}), None, None

    return parts


def _mgd(weight: float, channels: tuple[int, int], loss: dict[str, Any]) -> Parts:
    student, teacher = channels
    share = loss.get('lambda_mgd', 0.65)
    connector = dict(type='MGDConnector', student_channels=student, teacher_channels=teacher, lambda_mgd=share)
    return dict(type='MGDLoss', alpha_mgd=weight * loss.get('alpha_mgd', 2e-5)), connector, None


def _fbkd(weight: float, channels: tuple[int, int], loss: dict[str, Any]) -> Parts:
    pools = loss.get('sub_sample', False)
    options = dict(
        reduction=loss.get('reduction', 2), sub_sample=pools,
        maxpool_stride=loss.get('maxpool_stride', 2) // (2 if pools else 1),  # it pools by 2 once more
    )  # fmt: skip
    sides = [
        dict(type=f'FBKD{who}Connector', in_channels=c, **options) for who, c in zip(('Student', 'Teacher'), channels)
    ]
    return dict(type='FBKDLoss', loss_weight=weight), *sides


#: Our method → (weight, channels of both necks, options of our loss) → mmrazor's loss and its connectors.
METHODS: dict[str, Callable[..., Parts]] = dict(
    cwd=_plain('ChannelWiseDivergence', 'tau'), fbkd=_fbkd, mgd=_mgd, pkd=_plain('PKDLoss'),
)  # fmt: skip


def razor_detector(
    kind: str,
    method: str,
    student: dict[str, Any],
    teacher: dict[str, Any],
    terms: dict[str, Any],
    channels: tuple[int, int] = (256, 256),
) -> nn.Module:
    """A detector of mmrazor that distils as our terms do, with random weights.

    Args:
        kind: One of :data:`KINDS`.
        method: One of :data:`METHODS`.
        student: mmdet's config of the student's ``model``.
        teacher: mmdet's config of the teacher's ``model``.
        terms: Our terms: their levels, their weights and the options of their losses.
        channels: Of the necks of student and teacher.

    Raises:
        ConfigError: If mmrazor has no such loss for maps, or a term does not read the neck.
    """
    if method not in METHODS:
        raise ConfigError(f'mmrazor: no loss on feature maps for {method!r}; expected one of {", ".join(METHODS)}.')
    import_mmrazor()
    from mmrazor.registry import MODELS

    outputs = min(network['neck'].get('num_outs', _LEVELS) for network in (student, teacher))
    losses, mappings, connectors = {}, {}, {}
    for name, term in terms.items():
        options = {key: value for key, value in term['loss'].items() if key != 'type'}
        weight = term.get('weight', 1.0) * options.get('loss_weight', 1.0)
        for level in _levels(term['student'], outputs):
            loss, *between = METHODS[method](weight, channels, options)
            key = f'loss_{name}_{level}'
            losses[key] = loss
            entries = [
                dict(from_student=from_student, recorder='neck', data_idx=level) for from_student in (True, False)
            ]
            for side, entry, connector in zip('st', entries, between):
                if connector is not None:
                    entry['connector'] = f'{name}_{level}_{side}'
                    connectors[entry['connector']] = connector
            arguments = list(inspect.signature(MODELS.get(loss['type']).forward).parameters)[1:3]
            mappings[key] = dict(zip(arguments, entries))
    source = dict(neck=dict(type='ModuleOutputs', source='neck'))
    distiller = dict(
        type='ConfigurableDistiller', student_recorders=source, teacher_recorders=copy.deepcopy(source),
        distill_losses=losses, loss_forward_mappings=mappings, connectors=connectors or None,
    )  # fmt: skip
    student, teacher = (dict(copy.deepcopy(network), _scope_='mmdet') for network in (student, teacher))
    return MODELS.build(dict(type=kind, _scope_='mmrazor', architecture=student, teacher=teacher, distiller=distiller))


def _levels(tap: Any, outputs: int) -> range:
    """Which levels a tap of the neck reads, of a neck with some number of outputs."""
    found = re.fullmatch(r'neck(?:\[(\d*)(:?)(\d*)\])?', tap) if isinstance(tap, str) else None
    if not found:
        raise ConfigError(f'mmrazor: a term reads {tap!r}; expected levels of the neck, such as neck[0:4].')
    begin, colon, end = found.groups()
    if begin and not colon:
        return range(int(begin), int(begin) + 1)
    return range(outputs)[int(begin or 0) : int(end or outputs)]
