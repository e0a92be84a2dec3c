"""From the records of a setting to its figures: no text, no picture.

mAP and its differences are in 0 … 1 here; tables show per cent.
"""

from __future__ import annotations

import collections
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kd_det.bench.catalogue import Method, method_or_new
from kd_det.bench.statistics import (
    Difference,
    Spread,
    check_fairness,
    choose_factor,
    gap_share,
    mean_ratio,
    paired_difference,
    spread,
)
from kd_det.bench.wording import enumerate_names
from kd_det.errors import DataError

__all__ = ['Column', 'Control', 'MethodRow', 'SettingFigures', 'collect', 'level_with']

Record = Mapping


@dataclass(frozen=True)
class Column:
    """What the runs of one kind gave, one run per seed: a method at one factor, or students without a method.

    Attributes:
        factor: Times the published weights; None without a method.
        values: Seed → mAP, 0 for a diverged run.
        mAP: Mean and standard deviation of the values.
        metrics: Means of all metrics over the seeds that have them.
        gain: Paired difference to the plain student; None without a common seed.
        share: Of the gap to the teacher, from the means over the common seeds.
        cost: Training time over the plain student's, mean over the seeds: processor time on a CPU, wall time on a GPU.
        peak: Peak memory of training, MiB, mean over the seeds.
        peak_ratio: The same over the plain student's.
        diverged: Seeds whose loss became infinite or undefined.
        loss_ratio: Distillation loss over the student's own loss in the last epoch, median over the seeds.
    """

    factor: float | None
    values: dict[int, float]
    mAP: Spread
    metrics: dict[str, float]
    gain: Difference | None = None
    share: float | None = None
    cost: float | None = None
    peak: float | None = None
    peak_ratio: float | None = None
    diverged: tuple[int, ...] = ()
    loss_ratio: float | None = None

    @property
    def verdict(self) -> str:
        return 'unclear' if self.gain is None else self.gain.verdict


@dataclass(frozen=True)
class MethodRow:
    """A method in a setting: at the published weights, and at the factor that the holdout chose.

    Attributes:
        method: Its row of the catalogue.
        published: Factor 1.
        tuned: The chosen factor; the same object as ``published`` if that is 1.
        factor: The chosen factor; None before all factors are tried that other methods were tried with.
        holdout: Factor → mAP on the holdout.
    """

    method: Method
    published: Column | None
    tuned: Column | None
    factor: float | None
    holdout: dict[float, float]

    @property
    def columns(self) -> list[Column]:
        """The columns that exist, each once."""
        found = [column for column in (self.published, self.tuned) if column is not None]
        return found[:1] if self.published is self.tuned else found

    @property
    def shown(self) -> Column | None:
        """The tuned column, else the published one: what was chosen without looking at the validation split."""
        return self.tuned or self.published

    @property
    def best_gain(self) -> float:
        """The greater mean gain of the columns; minus infinity without any."""
        return max((c.gain.mean for c in self.columns if c.gain is not None), default=-math.inf)

    def facts(self) -> list[str]:
        """What the records say about why a method may not help."""
        facts, column = [], self.shown
        if column is None:
            return facts
        if column.diverged:
            facts.append(f'diverged with {_seeds(column.diverged)}')
        if len(self.holdout) > 1 and self.factor in (min(self.holdout), max(self.holdout)):
            side = 'largest' if self.factor == max(self.holdout) else 'smallest'
            facts.append(f'the chosen factor {self.factor:g} is the {side} tried')
        if column.loss_ratio is not None:
            percent = 100 * column.loss_ratio
            facts.append(
                f'its loss ends at {percent:.0f} % of the student’s own'
                if percent >= 10
                else f'its loss ends at {percent:.2g} % of the student’s own'
            )
        return facts


@dataclass(frozen=True)
class Control:
    """A method at one factor under three teachers, as paired differences to the plain student and between them."""

    method: Method
    factor: float
    trained: Difference | None
    random: Difference | None
    shuffled: Difference | None
    trained_over_random: Difference | None
    trained_over_shuffled: Difference | None


@dataclass(frozen=True)
class SettingFigures:
    """All figures of a setting.

    Attributes:
        name: The setting.
        pair: What the records say of networks and data.
        teachers: ``'trained'``, ``'shuffled'``, … → mAP on the validation split.
        students: ``'plain'``, ``'plain_longer'``, ``'self_distilled'`` → column, those that exist.
        rows: The methods, by the greater gain of their columns.
        controls: Methods that ran with a random teacher or one of shuffled labels.
        seeds: All seeds of students.
        missing: Sentences: what no record exists for.
        records: The records, one per cell, the latest of each.
        holdout_plain: mAP of the plain student on the holdout.
    """

    name: str
    pair: dict
    teachers: dict[str, float]
    students: dict[str, Column]
    rows: list[MethodRow]
    controls: list[Control]
    seeds: tuple[int, ...]
    missing: list[str]
    records: list[Record] = field(repr=False)
    holdout_plain: float | None = None

    @property
    def plain(self) -> Column | None:
        return self.students.get('plain')

    @property
    def gap(self) -> float | None:
        """mAP of the teacher minus that of the plain student."""
        if self.plain is None or 'trained' not in self.teachers:
            return None
        return self.teachers['trained'] - self.plain.mAP.mean


def _seeds(seeds: Iterable[int]) -> str:
    """``seed 0``, ``seeds 0, 2``."""
    seeds = sorted(seeds)
    return f'seed{"s" if len(seeds) > 1 else ""} {", ".join(map(str, seeds))}'


def _map(record: Record) -> float:
    """mAP of a record; 0 where it diverged.

    Raises:
        DataError: There were no objects to find.
    """
    if record['diverged']:
        return 0.0
    value = record['metrics']['mAP']
    if value is None or not value >= 0:
        raise DataError(
            f"{record['setting']}: cell '{record['cell']}': found mAP {value}, "
            'expected 0 to 1, on a split that holds objects.'
        )
    return float(value)


def _metrics(records: Sequence[Record]) -> dict[str, float]:
    """Means of all metrics but mAP over the records that have them; diverged runs count as 0."""
    found = {}
    for name in dict.fromkeys(name for r in records if not r['diverged'] for name in r['metrics']):
        known = [r['metrics'].get(name, -1) for r in records if not r['diverged']]
        if name != 'mAP' and all(value is not None and value >= 0 for value in known):
            found[name] = sum(known) / len(records)
    return found


def _cost(records: Sequence[Record], plain: Sequence[Record]) -> float | None:
    """Mean ratio of training times within seeds, of runs on the same kind of device that ran to their ends."""

    def times(runs: Sequence[Record], device: str) -> dict[int, float]:
        key = 'cpu_seconds' if device == 'cpu' else 'train_seconds'
        mine = [r for r in runs if not r['diverged'] and r['device'].split(':')[0] == device and r.get(key)]
        return {r['seed']: r[key] for r in mine}

    devices = {r['device'].split(':')[0] for r in plain} & {r['device'].split(':')[0] for r in records}
    ratios = [mean_ratio(times(records, device), times(plain, device)) for device in sorted(devices)]
    known = [ratio for ratio in ratios if ratio is not None]
    return known[0] if len(known) == 1 else None


def _loss_ratio(records: Sequence[Record]) -> float | None:
    ratios = []
    for record in records:
        curve = record.get('curve') or {}
        if not record['diverged'] and curve.get('loss') and curve.get('distill_loss'):
            own, distill = curve['loss'][-1], curve['distill_loss'][-1]
            if own is not None and distill is not None and own > 0 and math.isfinite(distill):
                ratios.append(distill / own)
    return statistics.median(ratios) if ratios else None


def _column(records: Sequence[Record], plain: Sequence[Record], teacher: float | None) -> Column | None:
    """The column of runs with different seeds."""
    if not records:
        return None
    records = sorted(records, key=lambda r: r['seed'])
    values, base = {r['seed']: _map(r) for r in records}, {r['seed']: _map(r) for r in plain}
    gain, share = paired_difference(values, base), None
    if gain is not None and teacher is not None:
        means = [statistics.fmean(side[seed] for seed in gain.seeds) for side in (base, values)]
        share = gap_share(teacher, *means)
    peaks, plain_peaks = ({r['seed']: r['peak_mib'] for r in side if r.get('peak_mib')} for side in (records, plain))
    return Column(
        factor=records[0]['factor'],
        values=values,
        mAP=spread(values.values()),
        metrics=_metrics(records),
        gain=gain,
        share=share,
        cost=_cost(records, plain),
        peak=statistics.fmean(peaks.values()) if peaks else None,
        peak_ratio=mean_ratio(peaks, plain_peaks),
        diverged=tuple(r['seed'] for r in records if r['diverged']),
        loss_ratio=_loss_ratio([r for r in records if r['factor'] is not None]),
    )


def _holdout(records: Sequence[Record]) -> dict[str | None, dict[float | None, float]]:
    """Method → factor → mean holdout mAP; the plain student stands under None."""
    found: dict = {}
    for record in records:
        if record['kind'] == 'tune' and record.get('split') == 'holdout':
            found.setdefault(record['method'], {}).setdefault(record['factor'], []).append(_map(record))
    return {m: {f: statistics.fmean(v) for f, v in sorted(by.items(), key=_first)} for m, by in found.items()}


def _first(item: tuple) -> float:
    return item[0] if item[0] is not None else 0.0


def _controls(students: Sequence[Record], plain: dict[int, float]) -> list[Control]:
    runs: dict[tuple[str, float], dict[str, dict[int, float]]] = {}
    for record in students:
        if record['role'] == 'method':
            key = (record['method'], record['factor'])
            runs.setdefault(key, {}).setdefault(record['teacher'], {})[record['seed']] = _map(record)
    controls = []
    for (name, factor), by in sorted(runs.items()):
        if by.keys() & {'random', 'shuffled'}:
            trained, random, shuffled = (by.get(teacher, {}) for teacher in ('trained', 'random', 'shuffled'))
            pairs = ((trained, plain), (random, plain), (shuffled, plain), (trained, random), (trained, shuffled))
            controls.append(Control(method_or_new(name), factor, *(paired_difference(*pair) for pair in pairs)))
    return controls


def collect(records: Sequence[Record]) -> SettingFigures:
    """The figures of one setting.

    Args:
        records: Finished runs, in the order in which they finished. Of several of one cell the last counts.

    Raises:
        DataError: There are no records, or those of several settings.
        RuntimeError: A student did not start, or was not fed, as the plain one.
    """
    settings = {record['setting'] for record in records}
    if len(settings) != 1:
        raise DataError(f'found records of {len(settings)} settings ({", ".join(sorted(settings))}), expected one')
    records = list({record['cell']: record for record in records}.values())
    check_fairness(records)
    reported = [record for record in records if record.get('split') == 'val']
    teachers = {r['teacher']: _map(r) for r in reported if r['kind'] == 'teacher'}
    students = [r for r in reported if r['kind'] == 'student']
    plain = [r for r in students if r['role'] == 'plain']
    teacher = teachers.get('trained')
    others = {
        role: _column([r for r in students if r['role'] == role], plain, teacher)
        for role in ('plain', 'plain_longer', 'self_distilled')
    }
    holdout = _holdout(records)
    mine = [r for r in students if r['role'] == 'method' and r['teacher'] == 'trained']
    names = dict.fromkeys(r['method'] for r in mine) | dict.fromkeys(name for name in holdout if name is not None)
    factors = {factor for name in names for factor in holdout.get(name, {})}
    titles = collections.Counter(method_or_new(name).title for name in names)
    rows = []
    for name in names:
        runs = [r for r in mine if r['method'] == name]
        factor = choose_factor(holdout.get(name, {})) if factors <= holdout.get(name, {}).keys() else None
        published = _column([r for r in runs if r['factor'] == 1], plain, teacher)
        tuned = published if factor == 1 else _column([r for r in runs if r['factor'] == factor], plain, teacher)
        method = method_or_new(name)
        if titles[method.title] > 1:  # two fragments of one method
            method = replace(method, name=name, title=f'{method.title} ({name})')
        origin = next((r['weights_are'] for r in runs if r.get('weights_are')), method.weights_are)
        rows.append(MethodRow(replace(method, weights_are=origin), published, tuned, factor, holdout.get(name, {})))
    rows.sort(key=lambda row: (-row.best_gain, row.method.name))
    seeds = tuple(sorted({r['seed'] for r in students}))
    return SettingFigures(
        name=settings.pop(),
        pair=dict(next((r['pair'] for r in reported or records if r.get('pair')), {})),
        teachers=teachers,
        students={role: column for role, column in others.items() if column is not None},
        rows=rows,
        controls=_controls(students, {r['seed']: _map(r) for r in plain}),
        seeds=seeds,
        missing=_missing(teachers, others, rows, seeds),
        records=records,
        holdout_plain=holdout.get(None, {}).get(None),
    )


def level_with(best: MethodRow, rows: Sequence[MethodRow]) -> list[MethodRow]:
    """The other methods that are not below ``best`` with the interval of their paired differences clear of zero."""
    found = []
    for row in rows:
        if row.method.name != best.method.name and row.shown is not None and row.shown.gain is not None:
            difference = paired_difference(best.shown.values, row.shown.values)
            if difference is None or difference.verdict != 'helps':
                found.append(row)
    return found


def _missing(
    teachers: Mapping[str, float],
    students: Mapping[str, Column | None],
    rows: Sequence[MethodRow],
    seeds: Sequence[int],
) -> list[str]:
    """Sentences about cells without a record, as far as the others let one expect them."""
    found = (
        [] if 'trained' in teachers else ['The trained teacher has no record, so that shares of the gap are unknown.']
    )
    students_of = dict(plain='plain student', plain_longer='longer plain run', self_distilled='self-distilled student')
    for role, title in students_of.items():
        column = students[role]
        lacking = [seed for seed in seeds if column is None or seed not in column.values]
        if column is None:
            found.append(f'No record of a {title}.')
        elif lacking:
            found.append(f'The {title} lacks {_seeds(lacking)}.')
    factors = sorted({factor for row in rows for factor in row.holdout})
    lacking_by: dict[str, list[str]] = {}
    for row in rows:
        parts = []
        untried = [factor for factor in factors if factor not in row.holdout]
        if factors and untried:
            parts.append(f'tuning at {", ".join(f"{factor:g}" for factor in untried)}')
        wanted = {1: row.published} if row.factor in (None, 1) else {1: row.published, row.factor: row.tuned}
        for factor, column in wanted.items():
            lacking = [seed for seed in seeds if column is None or seed not in column.values]
            if lacking:
                every = len(lacking) == len(seeds) and len(seeds) > 1
                parts.append(f'factor {factor:g} with {"all seeds" if every else _seeds(lacking)}')
        if parts:
            lacking_by.setdefault('; '.join(parts), []).append(row.method.title)
    for parts, titles in lacking_by.items():
        found.append(f'{enumerate_names(titles)} {"lack" if len(titles) > 1 else "lacks"} {parts}.')
    if rows and not factors:
        found.append('No tuning was recorded: the tuned columns are empty.')
    return found
