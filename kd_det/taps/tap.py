"""Tap strings.

==================================  ================================================================================
tap                                 what it reads
==================================  ================================================================================
``neck``                            the output of the module ``neck``: all levels
``neck[1:4]``                       a slice of it
``neck.fpn_convs.3.conv``           the output of a module inside
``bbox_head[0]``, ``bbox_head[1]``  class scores and box regression of a dense head, all levels
``roi_head.bbox_head[0]``           class scores of the second stage, one row per RoI
``bbox_head.get_targets()``         what a method returned, for what no module returns
``roi_head.bbox_roi_extractor@in``  the positional inputs of a module, as a tuple
``backbone.layer4@pre``             what goes into the last activation (ReLU, SiLU, …) that runs inside a module
``big:neck``                        the same in another network: a named teacher, ``student`` or ``teacher``
==================================  ================================================================================

A module that runs several times in one forward (a shared tower runs once per level) gives one reading per call, in
order: a list of levels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean

_GRAMMAR = re.compile(
    r'^(?:(?P<owner>\w+):)?(?P<path>\w+(?:\.\w+)*)(?P<kind>\(\)|@in|@pre)?(?P<index>(?:\[[^\[\]]*\])*)$'
)
_INDEX = re.compile(r'\[([^\[\]]*)\]')


def _parse_index(text: str) -> int | slice:
    parts = [part.strip() for part in text.split(':')]
    if not 1 <= len(parts) <= 3 or (len(parts) == 1 and not parts[0]):
        raise ValueError(text)
    numbers = [int(part) if part else None for part in parts]
    return numbers[0] if len(numbers) == 1 else slice(*numbers)


@dataclass(frozen=True)
class Tap:
    """A place to read.

    Attributes:
        text: The string as written in the config.
        path: Dotted path of a module; empty for the network itself (``get_something()``).
        kind: ``'output'``, ``'input'``, ``'pre'`` or ``'method'``.
        method: The method's name, for kind ``'method'``.
        index: What is picked from the reading, in order.
        owner: The network's name before the colon; empty where the term's key says whose tap it is.
    """

    text: str
    path: str
    kind: str
    method: str = ''
    index: tuple[Any, ...] = ()
    owner: str = ''

    @classmethod
    def parse(cls, text: Any, key: str = 'tap') -> Tap:
        """Parse a tap string.

        Args:
            text: The string.
            key: The config key to blame in errors.

        Raises:
            ConfigError: If it is no tap string.
        """
        expected = (
            "expected such as 'neck', 'neck[1:4]', 'bbox_head[0]', 'bbox_head.get_targets()', 'module@in[1]', "
            "'module@pre'."
        )
        match = _GRAMMAR.match(text.strip()) if isinstance(text, str) else None
        try:
            index = tuple(_parse_index(part) for part in _INDEX.findall(match['index'])) if match else ()
        except ValueError:
            match = None
        if match is None:
            raise ConfigError(f'{key}: {text!r} is not a tap; {expected}')
        path, kind, method = match['path'], 'output', ''
        if match['kind'] == '()':
            path, _, method = path.rpartition('.')
            kind = 'method'
        elif match['kind']:
            kind = {'@in': 'input', '@pre': 'pre'}[match['kind']]
        return cls(text.strip(), path, kind, method, index, match['owner'] or '')

    @property
    def source(self) -> tuple[str, str, str]:
        """What has to be recorded; taps that differ in their index alone share it."""
        return self.path, self.kind, self.method

    def module(self, network: nn.Module, key: str = 'tap') -> nn.Module:
        """The module that the tap names.

        Raises:
            ConfigError: If the network has no such module or method; the message names the nearest ones.
        """
        module: Any = network
        for part in filter(None, self.path.split('.')):
            module = getattr(module, part, None)
            if not isinstance(module, nn.Module):
                names = [name for name, _ in network.named_modules() if name]
                raise ConfigError(
                    f'{key}: {self.text!r}: {type(network).__name__} has no module {self.path!r}.'
                    f'{did_you_mean(self.path, names)}'
                )
        if self.kind == 'method' and not callable(getattr(module, self.method, None)):
            names = [
                name for name in dir(type(module)) if callable(getattr(type(module), name, None)) and name[0] != '_'
            ]
            raise ConfigError(
                f'{key}: {self.text!r}: {type(module).__name__} has no method {self.method!r}.'
                f'{did_you_mean(self.method, names)}'
            )
        return module

    def pick(self, records: list[Any], key: str = 'tap') -> Any:
        """The reading, from the records of one forward.

        Raises:
            ConfigError: If nothing was recorded, or the index does not exist.
        """
        if not records:
            raise ConfigError(
                f'{key}: {self.text!r} was not run in this forward, so that there is nothing to read there.'
            )
        reading = records[0] if len(records) == 1 else list(records)
        for index in self.index:
            if not isinstance(reading, (list, tuple)):
                raise ConfigError(
                    f'{key}: {self.text!r}: index [{_show(index)}] on {describe(reading)}, which is no list; drop it.'
                )
            try:
                reading = reading[index]
            except IndexError:
                raise ConfigError(
                    f'{key}: {self.text!r}: index [{_show(index)}] on a reading of {len(reading)} items; '
                    f'expected 0 to {len(reading) - 1}.'
                ) from None
            if isinstance(index, slice) and not reading:
                raise ConfigError(f'{key}: {self.text!r}: the slice [{_show(index)}] is empty.')
        return reading


def _show(index: int | slice) -> str:
    if isinstance(index, int):
        return str(index)
    ends = [index.start, index.stop] + ([index.step] if index.step is not None else [])
    return ':'.join('' if end is None else str(end) for end in ends)


def describe(reading: Any) -> str:
    """A reading in words, with shapes: for error messages and the plan."""
    if isinstance(reading, Tensor):
        return f'a tensor {tuple(reading.shape)}'
    if isinstance(reading, (list, tuple)):
        inside = ', '.join(str(tuple(r.shape)) if isinstance(r, Tensor) else type(r).__name__ for r in reading)
        return f'{len(reading)} items ({inside})'
    return f'a {type(reading).__name__}'


def levels_of(reading: Any, key: str = 'tap') -> list[Tensor]:
    """The levels of a reading: a tensor is one level, a list or tuple of tensors one level each.

    Raises:
        ConfigError: If there is anything but tensors in it.
    """
    levels = [reading] if isinstance(reading, Tensor) else reading
    if not isinstance(levels, (list, tuple)) or not all(isinstance(level, Tensor) for level in levels):
        raise ConfigError(
            f'{key}: the reading is {describe(reading)}, but one tensor per level is expected; '
            'pick with an index, such as bbox_head[0] for class scores.'
        )
    return list(levels)
