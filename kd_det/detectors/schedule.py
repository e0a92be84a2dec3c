"""When a term counts."""

from __future__ import annotations

import inspect
from typing import Any

from kd_det.errors import ConfigError, did_you_mean


class Schedule:
    """The factor of a term over the training: 0 before ``begin``, a linear ramp, 1, and 0 from ``end`` on.

    Args:
        begin: Where the term starts.
        warmup: Length of the linear ramp from 0 to 1 behind ``begin``.
        end: Where the term stops; None for never.
        by_epoch: Whether the three count epochs (fractions allowed) or iterations.

    Raises:
        ConfigError: If the numbers are out of order.
    """

    def __init__(self, begin: float = 0, warmup: float = 0, end: float | None = None, by_epoch: bool = True) -> None:
        if begin < 0 or warmup < 0 or (end is not None and end < begin + warmup):
            raise ConfigError(
                f'schedule: begin={begin}, warmup={warmup}, end={end}; expected 0 <= begin, 0 <= warmup and '
                'begin + warmup <= end.'
            )
        self.begin, self.warmup, self.end, self.by_epoch = begin, warmup, end, by_epoch

    @classmethod
    def from_config(cls, cfg: dict[str, Any] | None, key: str) -> Schedule:
        """Build from a config dict; None means always on.

        Raises:
            ConfigError: For an unknown option.
        """
        if cfg is not None and not isinstance(cfg, dict):
            raise ConfigError(f'{key}.schedule: found {cfg!r}, expected such as dict(begin=1, warmup=2, end=10).')
        cfg = dict(cfg or {})
        known = list(inspect.signature(cls).parameters)
        for name in cfg:
            if name not in known:
                raise ConfigError(
                    f'{key}.schedule: unknown option {name!r}; expected {known}.{did_you_mean(name, known)}'
                )
            number = isinstance(cfg[name], (int, float)) and not isinstance(cfg[name], bool)
            if name != 'by_epoch' and not number and not (name == 'end' and cfg[name] is None):
                raise ConfigError(f'{key}.schedule: found {name}={cfg[name]!r}, expected a number.')
        try:
            return cls(**cfg)
        except ConfigError as error:
            raise ConfigError(f'{key}.{error}') from error

    def factor(self, iteration: int, epoch: float) -> float:
        """The factor at a point of the training.

        Args:
            iteration: Steps done so far.
            epoch: Epochs done so far, with the fraction of the running one.
        """
        now = epoch if self.by_epoch else iteration
        if now < self.begin or (self.end is not None and now >= self.end):
            return 0.0
        return min(1.0, (now - self.begin) / self.warmup) if self.warmup else 1.0
