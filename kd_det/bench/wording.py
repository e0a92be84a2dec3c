"""How figures are written in the reports: mAP in per cent, differences in points, with one decimal."""

from __future__ import annotations

from collections.abc import Sequence

from kd_det.bench.statistics import ENOUGH_SEEDS, Difference, Spread

__all__ = [
    'NOTHING',
    'beside',
    'cost',
    'enumerate_names',
    'few',
    'gain',
    'gain_half',
    'percent',
    'ratio',
    'share',
    'signed',
    'whole',
]

#: In a cell without a figure.
NOTHING = '–'
#: Less is zero: figures have three decimals.
_NOTHING_LEFT = 1e-9


def percent(value: float | Spread | None) -> str:
    """0.4123 → ``41.2``; a spread of several values → ``41.2 ± 0.8``."""
    if value is None:
        return NOTHING
    if isinstance(value, Spread):
        return f'{100 * value.mean:.1f}' + ('' if value.std is None else f' ± {100 * value.std:.1f}')
    return f'{100 * value:.1f}'


def signed(value: float) -> str:
    """0.0123 → ``+1.2``; zero has a plus, and what is rounded to it its own sign."""
    return f'{_points(value):+.1f}'


def _points(value: float) -> float:
    """Per cent; what is left of a sum of zero, as -1e-16 is, is zero, and zero has no sign."""
    return 0.0 if abs(value) < _NOTHING_LEFT else 100 * value


def _seeds(count: int) -> str:
    return 'one seed' if count == 1 else f'{count} seeds'


def gain(difference: Difference | None, least: int = 2) -> str:
    """``+1.2 [+0.3, +2.1]``; of less than ``least`` seeds without the interval: ``+1.2 (one seed)``."""
    if difference is None:
        return NOTHING
    if difference.half is None or len(difference.seeds) < least:
        return f'{signed(difference.mean)} ({_seeds(len(difference.seeds))})'
    return f'{signed(difference.mean)} [{signed(difference.low)}, {signed(difference.high)}]'


def gain_half(difference: Difference | None) -> str:
    """``+1.2 ± 0.9``, the half width of the interval; bold if that is clear of zero.

    With two seeds or one there is no interval: ``+1.2 (2 seeds)``.
    """
    if difference is None:
        return NOTHING
    if difference.half is None or len(difference.seeds) < ENOUGH_SEEDS:
        return gain(difference, ENOUGH_SEEDS)
    text = f'{signed(difference.mean)} ± {100 * difference.half:.1f}'
    return text if difference.verdict == 'unclear' else f'**{text}**'


def beside(differences: Sequence[Difference], what: str = 'methods', where: str = '') -> str:
    """How many methods (or rows) of those that take no longer than a longer plain run gain more than it does.

    Args:
        differences: Of these, minus the longer run.
        what: They are called.
        where: Said in brackets of where they are from.
    """
    if not differences:
        return 'no method with known time takes as little'
    more = sum(difference.mean > 0 for difference in differences)
    clear = [difference.verdict for difference in differences].count('helps')
    return (
        f'of {len(differences)} {what} that take no longer{where and f" ({where})"}, {more} gain more, {clear} clearly'
    )


def share(value: float | None) -> str:
    """0.544 → ``54 %``."""
    return NOTHING if value is None else f'{_points(value):.0f} %'


def ratio(value: float | None) -> str:
    """1.2345 → ``1.23``."""
    return NOTHING if value is None else f'{value:.2f}'


def cost(value: float | None, found_from: str | None) -> str:
    """As :func:`ratio`; ``~1.23`` for a rough figure, one of whole runs (``Column.cost_from``).

    A rough figure below 1 is ``~1``: no method makes a step cheaper.
    """
    if value is None or found_from != 'runs':
        return ratio(value)
    return '~1' if value < 1 else f'~{ratio(value)}'


def whole(value: float | None) -> str:
    """1234.5 → ``1234``."""
    return NOTHING if value is None else f'{value:.0f}'


def enumerate_names(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; ``none`` for nothing."""
    names = list(names)
    if len(names) < 2:
        return names[0] if names else 'none'
    return f'{", ".join(names[:-1])} and {names[-1]}'


def few(names: Sequence[str], most: int = 5) -> str:
    """As :func:`enumerate_names`; of more than ``most`` names one less than that, and how many more."""
    names = list(names)
    return enumerate_names(names if len(names) <= most else [*names[: most - 1], f'{len(names) - most + 1} more'])
