"""One entry of ``model.distill``."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from kd_det.adapters import Adapter, Align, Pair
from kd_det.compat import import_mmrazor
from kd_det.errors import ConfigError, did_you_mean
from kd_det.losses._functional import device_type, upcast
from kd_det.registry import MODELS
from kd_det.taps import Tap

from .schedule import Schedule

_KEYS = ('student', 'teacher', 'loss', 'adapter', 'inputs', 'weight', 'schedule')


class Term(nn.Module):
    """Ties a student tap and a teacher tap to an adapter and a loss, with a weight and a schedule.

    Args:
        name: The key in ``model.distill``; the term is logged as ``loss_<name>``.
        cfg: The entry: ``student`` and ``teacher`` (a tap, or a list of taps that are one level each), ``loss``, and
            optionally ``adapter`` (:class:`~kd_det.adapters.Align` if absent), ``inputs`` (argument name → tap, for
            what the loss or adapter needs besides; ``'teacher:…'`` reads this term's teacher), ``weight`` (1.0) and
            ``schedule`` (:class:`~kd_det.detectors.Schedule`). A tap in ``teacher`` may name its network:
            ``'big:neck'`` one of several teachers, ``'student:backbone.layer4'`` the student itself.

    Raises:
        ConfigError: For unknown or missing keys, a wrong tap string, an unknown loss, adapter or option.
    """

    def __init__(self, name: str, cfg: dict[str, Any]) -> None:
        super().__init__()
        self.name, self.key = name, f'distill.{name}'
        if not isinstance(cfg, dict):
            raise ConfigError(f'{self.key}: found {type(cfg).__name__}, expected dict(student=…, teacher=…, loss=…).')
        for key in cfg:
            if key not in _KEYS:
                raise ConfigError(
                    f'{self.key}: unknown key {key!r}; expected {", ".join(_KEYS)}.{did_you_mean(key, _KEYS)}'
                )
        for key in ('student', 'teacher', 'loss'):
            if key not in cfg:
                raise ConfigError(
                    f'{self.key}: the key {key!r} is missing; expected dict(student=…, teacher=…, loss=…).'
                )
        #: What the pair is made of: one tap, or one for each level.
        self.student_taps = _parse(cfg['student'], f'{self.key}.student')
        self.teacher_taps = _parse(cfg['teacher'], f'{self.key}.teacher')
        self.student_tap, self.teacher_tap = self.student_taps[0], self.teacher_taps[0]
        self._check_owners()
        inputs = cfg.get('inputs') or {}
        if not isinstance(inputs, dict):
            raise ConfigError(f'{self.key}.inputs: found {inputs!r}, expected a dict of argument name and tap.')
        self.weight = cfg.get('weight', 1.0)
        is_number = isinstance(self.weight, (int, float)) and not isinstance(self.weight, bool)
        if not is_number or not math.isfinite(self.weight):
            raise ConfigError(f'{self.key}.weight: found {self.weight!r}, expected a finite number.')
        self.schedule = Schedule.from_config(cfg.get('schedule'), self.key)
        #: The schedule's factor for the running step; set by ``TermScheduleHook``.
        self.factor = self.schedule.factor(0, 0.0)

        self.loss_cfg = dict(cfg['loss']) if isinstance(cfg['loss'], dict) else cfg['loss']
        self.loss_class = resolve(self.loss_cfg, f'{self.key}.loss')
        forward = list(inspect.signature(self.loss_class.forward).parameters.values())[1:]  # without self
        named = [p for p in forward if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        if len(named) < 2 and len(named) == len(forward):
            raise ConfigError(
                f'{self.key}.loss: {self.loss_cfg["type"]!r} takes one reading ({", ".join(p.name for p in named)}); '
                'expected a loss that compares two, student and teacher first.'
            )
        #: What the loss asks for by argument name, and whether it has a default.
        self.asked = {p.name: p.default is not p.empty for p in named[2:]}
        self.multi_level = getattr(self.loss_class, 'multi_level', False)
        self.same_channels = getattr(self.loss_class, 'same_channels', True)

        adapter_cfg = dict(cfg.get('adapter') or dict(type='kd_det.Align'))
        resolve(adapter_cfg, f'{self.key}.adapter')
        self.adapter: Adapter = _build(adapter_cfg, f'{self.key}.adapter')
        if not isinstance(self.adapter, Adapter):
            raise ConfigError(f'{self.key}.adapter: {adapter_cfg["type"]!r} is no adapter.')
        self.adapter.student_tap, self.adapter.teacher_taps = self.student_tap, self.teacher_taps
        inputs = {**self.adapter.inputs, **inputs}
        self.input_taps = {arg: Tap.parse(tap, f'{self.key}.inputs.{arg}') for arg, tap in inputs.items()}
        self.losses = nn.ModuleList()

    def _check_owners(self) -> None:
        for tap in self.student_taps:
            if tap.owner not in ('', 'student'):
                raise ConfigError(f'{self.key}.student: {tap.text!r} is not in the student; drop {tap.owner + ":"!r}.')
        owners = {tap.owner for tap in self.teacher_taps}
        if len(owners) > 1:
            raise ConfigError(
                f'{self.key}.teacher: taps of {len(owners)} networks ({", ".join(sorted(owners))}); expected one '
                'teacher for a term. Write one term for each.'
            )

    @property
    def teacher_name(self) -> str:
        """Whose taps ``teacher`` names: a teacher, ``'student'``, or empty for the only teacher."""
        return '' if self.teacher_tap.owner == 'teacher' else self.teacher_tap.owner

    def owner(self, tap: Tap) -> str:
        """Whose tap this is, of the term's inputs: ``'student'``, a teacher's name, or empty for the only teacher."""
        if tap.owner == 'teacher':
            return self.teacher_name
        return tap.owner or 'student'

    def taps(self) -> list[tuple[str, Tap, str]]:
        """All taps of the term: whose it is (see :meth:`owner`), the tap, the config key."""
        found = [('student', tap, f'{self.key}.student') for tap in self.student_taps]
        found += [(self.teacher_name, tap, f'{self.key}.teacher') for tap in self.teacher_taps]
        return found + [(self.owner(tap), tap, f'{self.key}.inputs.{arg}') for arg, tap in self.input_taps.items()]

    def prepare(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        """Build adapter layers and losses from the readings of a dry forward.

        Args:
            student: The student's reading.
            teacher: The teacher's reading.
            context: As in :meth:`forward`.

        Returns:
            The pairs that the losses will see.

        Raises:
            ConfigError: If something does not fit.
        """
        self.adapter.prepare(student, teacher, context, self.key, self.same_channels)
        with torch.no_grad():
            pairs = self._pairs(student, teacher, context)
        accepted = inspect.signature(self.loss_class.__init__).parameters
        for index, pair in enumerate(pairs):
            known = self.adapter.loss_options(index)
            for side, value in (('student', pair.student), ('teacher', pair.teacher)):
                if f'{side}_channels' in accepted:
                    known.setdefault(f'{side}_channels', _channels(value))
            known = {name: value for name, value in known.items() if name in accepted}
            self.losses.append(_build({**known, **self.loss_cfg}, f'{self.key}.loss'))
        for arg, has_default in self.asked.items():
            if not has_default and not all(arg in {**context, **pair.extras} for pair in pairs):
                offered = sorted({**context, **pairs[0].extras})
                raise ConfigError(
                    f'{self.key}.loss: {self.loss_cfg["type"]} asks for {arg!r}, which neither the samples nor the '
                    f'adapter give. Take an adapter that does (docs/methods.md names it), or name a tap: '
                    f'inputs=dict({arg}=…). Offered: {", ".join(offered)}.'
                )
        self.notes = self._notes(pairs)
        return pairs

    def _notes(self, pairs: list[Pair]) -> list[str]:
        """What is possible and hardly meant: a loss on rows that gets maps."""
        rows = getattr(self.loss_class, 'row_adapter', None)
        if not rows or not is_default_align(self.adapter) or getattr(pairs[0].student, 'ndim', 0) != 4:
            return []
        what = 'one row per image' if rows == 'kd_det.Instances' else 'every anchor of the map, objects or not'
        return [
            f'{self.key}: {self.loss_class.__name__} compares rows, and takes {what}; meant is '
            f'adapter=dict(type={rows!r}).'
        ]

    def _pairs(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        pairs = self.adapter(student, teacher, context)
        if not self.multi_level:
            return pairs
        extras: dict[str, Any] = {}
        for name in pairs[0].extras:
            extras[name] = [pair.extras[name] for pair in pairs]
        return [Pair([pair.student for pair in pairs], [pair.teacher for pair in pairs], extras)]

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> dict[str, Tensor]:
        """The weighted loss of one step, in float32 at least.

        Args:
            student: The student's reading.
            teacher: The teacher's reading.
            context: ``gt_bboxes`` (per image (n, 4), xyxy, pixels of the network's input), ``gt_labels`` (per image
                (n,)), ``image_sizes`` (per image (h, w) without padding), ``batch_input_shape`` (h, w),
                ``data_samples``, and the readings of :attr:`input_taps`.

        Returns:
            ``loss_<name>``, or ``loss_<name>_<part>`` for each part of a loss that returns a dict.
        """
        student, teacher, context = upcast((student, teacher, context))
        with torch.autocast(device_type(student) or 'cpu', enabled=False):
            total: dict[str, Tensor] = {}
            for loss, pair in zip(self.losses, self._pairs(student, teacher, context)):
                offered = {**context, **pair.extras}
                asked = {arg: offered[arg] for arg in self.asked if arg in offered}
                try:
                    value = loss(pair.student, pair.teacher, **asked)
                except ValueError as error:
                    raise ConfigError(f'{self.key}.loss: {error}') from error
                parts = value.items() if isinstance(value, dict) else [('', value)]
                for part, number in parts:
                    name = f'loss_{self.name}_{part}' if part else f'loss_{self.name}'
                    number = number * (self.weight * self.factor)
                    total[name] = total[name] + number if name in total else number
        return total

    def idle(self) -> dict[str, Tensor]:
        """A zero that reaches every parameter of the term: for steps in which its schedule says 0, so that DDP needs
        no ``find_unused_parameters``."""
        zero = [parameter.sum() * 0.0 for parameter in self.parameters() if parameter.requires_grad]
        return {f'loss_{self.name}': torch.stack(zero).sum()} if zero else {}


def resolve(cfg: Any, key: str) -> type:
    """The class that a config dict names, with its options checked.

    Raises:
        ConfigError: If it names nothing, or has an option that the class does not know.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise ConfigError(f"{key}: found {cfg!r}, expected a dict with 'type', such as dict(type='kd_det.CWDLoss').")
    found = cfg['type']
    if isinstance(found, str):
        if found.startswith('mmrazor.'):
            import_mmrazor()
        cls = MODELS.get(found)
        if cls is None:
            names = [f'kd_det.{name}' for name in MODELS.module_dict]
            if found.startswith('mmrazor.'):
                from mmrazor.registry import MODELS as MMRAZOR

                names = [f'mmrazor.{name}' for name in MMRAZOR.module_dict]
            short = found.rsplit('.', 1)[-1]
            near = did_you_mean(found if '.' in found else f'kd_det.{short}', names)
            raise ConfigError(f'{key}.type: {found!r} is not registered.{near}')
    else:
        cls = found
    parameters = inspect.signature(cls.__init__).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = [name for name in parameters if name != 'self']
        for option in cfg:
            if option not in ('type', '_scope_') and option not in known:
                raise ConfigError(
                    f'{key}: {cls.__name__} has no option {option!r} (found {option}={cfg[option]!r}); expected '
                    f'{", ".join(known) or "none"}.{did_you_mean(option, known)}'
                )
    return cls


def _parse(value: Any, key: str) -> list[Tap]:
    return [Tap.parse(text, key) for text in (value if isinstance(value, (list, tuple)) and value else [value])]


def _channels(value: Any) -> Any:
    return value.shape[1] if isinstance(value, Tensor) else [level.shape[1] for level in value]


def _build(cfg: dict[str, Any], key: str) -> nn.Module:
    """Build a loss or an adapter; what its constructor refuses is an error of this key."""
    try:
        return MODELS.build(cfg)
    except (TypeError, ValueError) as error:
        raise ConfigError(f'{key}: {error}') from error


def is_default_align(adapter: Adapter) -> bool:
    """Whether an adapter aligns level by level, as terms without ``adapter`` do."""
    return isinstance(adapter, Align)
