"""What may be said about seeds: means, paired differences with intervals, shares of the gap, the choice of a factor."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t

__all__ = [
    'ENOUGH_SEEDS',
    'Difference',
    'Spread',
    'above_after_holm',
    'check_fairness',
    'choose_factor',
    'gap_share',
    'holm',
    'mean_ratio',
    'paired_difference',
    'spread',
    'verdict',
]

#: What every student of a seed shares with the plain one of that seed, and the roles that train longer by design.
_SHARED = ('initial_weights', 'data', 'steps')
_LONGER = ('plain_longer', 'plain_as_teacher')
#: "No effect is shown" can be said with as many seeds; an interval of two is too wide to say anything.
ENOUGH_SEEDS = 3
#: mmdet rounds mAP to this.
RESOLUTION = 0.001


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of ``n`` values; ``std`` is None for one value."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """Mean of differences within seeds, with the half width of its interval, None for one seed.

    ``p`` is the two-sided p-value of "there is no difference" in the same t-test, None for one seed.
    """

    mean: float
    half: float | None
    seeds: tuple[int, ...]
    p: float | None = None

    @property
    def low(self) -> float | None:
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        return None if self.half is None else self.mean + self.half

    @property
    def verdict(self) -> str:
        return verdict(self.low, self.high)


def spread(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation (divisor n - 1).

    Raises:
        ValueError: There are no values.
    """
    values = list(values)
    if not values:
        raise ValueError('found no values, expected at least one')
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def paired_difference(
    first: Mapping[int, float],
    second: Mapping[int, float],
    confidence: float = 0.95,
    resolution: float = RESOLUTION,
) -> Difference | None:
    """Mean of ``first - second`` over the seeds that both have, with its two-sided Student-t interval.

    Both values are rounded, to ``resolution``: rounding alone gives each an error of standard deviation
    ``resolution / sqrt(12)``, and their difference ``sqrt(2)`` times that. The deviation of the differences counts as
    that at least: seeds whose rounded differences happen to be equal do not make an interval without width.

    Args:
        first: Seed → value.
        second: Seed → value.
        confidence: Of the interval, within 0 and 1.
        resolution: Step of the values; 0 for exact ones.

    Returns:
        None without a common seed; without an interval for one common seed.
    """
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        return None
    found = spread(first[seed] - second[seed] for seed in seeds)
    if found.std is None:
        return Difference(found.mean, None, seeds)
    error = max(found.std, resolution * math.sqrt(2 / 12)) / math.sqrt(found.n)
    half = float(student_t.ppf(0.5 + confidence / 2, found.n - 1)) * error
    if error > 0:
        p = 2 * float(student_t.sf(abs(found.mean) / error, found.n - 1))
    else:
        p = float(found.mean == 0)
    return Difference(found.mean, half, seeds, p)


def holm(p_values: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of several tests stay significant after Holm's correction, however they depend on each other.

    The chance that any true null hypothesis is among them is at most ``level`` (Holm, Scand. J. Statist. 1979).

    Args:
        p_values: Of all tests that were made.
        level: Of the whole family.

    Returns:
        For each test whether it stays.
    """
    stays = [False] * len(p_values)
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[i] > level / (len(p_values) - rank):
            break
        stays[i] = True
    return stays


def above_after_holm(gains: Sequence[Difference]) -> list[bool]:
    """Which of several gains, of two seeds at least, stay above zero after Holm's correction (:func:`holm`)."""
    return [stays and gain.mean > 0 for gain, stays in zip(gains, holm([gain.p for gain in gains]))]


def verdict(low: float | None, high: float | None) -> str:
    """``'helps'`` for an interval above 0, ``'hurts'`` for one below, else, and without one, ``'unclear'``."""
    if low is not None and low > 0:
        return 'helps'
    if high is not None and high < 0:
        return 'hurts'
    return 'unclear'


def gap_share(teacher: float, plain: float, method: float) -> float | None:
    """Share of the gap between plain student and teacher that a method closes; None if the teacher is not better."""
    gap = teacher - plain
    return (method - plain) / gap if gap > 0 else None


def choose_factor(holdout: Mapping[float, float]) -> float | None:
    """The factor with the best holdout figure; of equal ones the nearest to 1 in ratio, then the smaller.

    Args:
        holdout: Factor (above 0) → figure.

    Returns:
        None if nothing was tried.
    """
    if not holdout:
        return None
    return min(holdout, key=lambda factor: (-holdout[factor], round(abs(math.log(factor)), 9), factor))


def mean_ratio(first: Mapping[int, float], second: Mapping[int, float]) -> float | None:
    """Mean of ``first / second`` over the seeds that both have with values above 0; None without one."""
    ratios = [first[s] / second[s] for s in sorted(first.keys() & second.keys()) if first[s] > 0 and second[s] > 0]
    return statistics.fmean(ratios) if ratios else None


def check_fairness(records: Sequence[Mapping]) -> None:
    """See that the students of a seed started from the same weights and saw the same batches, as often.

    Compared are, within a setting and a seed, all records of kind ``'student'`` with the plain one (without one, with
    the first), but those of roles ``'plain_longer'`` and ``'plain_as_teacher'``. Diverged runs stopped early: only
    their first weights count.

    Raises:
        RuntimeError: A student differs. The text names its cell, the key, and both values.
    """
    groups: dict[tuple, list[Mapping]] = {}
    for record in records:
        if record['kind'] == 'student' and record['role'] not in _LONGER:
            groups.setdefault((record['setting'], record['seed']), []).append(record)
    for (setting, _), students in groups.items():
        # False sorts first: a plain run before others, and of each one that ran to its end.
        students = sorted(students, key=lambda r: (bool(r['diverged']), r['role'] != 'plain'))
        start = next((r for r in students if r['role'] == 'plain'), students[0])
        for record in students:
            for key in _SHARED:
                reference = start if key == 'initial_weights' or not start['diverged'] else students[0]
                if key != 'initial_weights' and (record['diverged'] or reference['diverged']):
                    continue
                if record[key] != reference[key]:
                    raise RuntimeError(
                        f"{setting}: cell '{record['cell']}' is no fair comparison: {key}: found {record[key]!r}, "
                        f"expected {reference[key]!r} of '{reference['cell']}'."
                    )
