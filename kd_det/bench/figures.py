"""From the records of a setting to its figures: no text, no picture.

mAP and its differences are in 0 … 1 here; tables show per cent.
"""

from __future__ import annotations

import collections
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from kd_det.bench.catalogue import Method, method_or_new
from kd_det.bench.statistics import (
    ENOUGH_SEEDS,
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

__all__ = ['ENOUGH_SEEDS', 'Column', 'Control', 'MethodRow', 'SettingFigures', 'collect', 'level_with']

Record = Mapping
#: Of students without a method.
STUDENT_ROLES = ('plain', 'plain_longer', 'plain_as_teacher', 'self_distilled')


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
        cost: Training time over the plain student's; see ``cost_from``.
        cost_from: ``'timing'`` for the ratio of steps that alternated in one process; ``'steps'`` for plain students,
            as many times the plain one's steps; ``'runs'``, which is rough, for the ratio of whole runs that others
            ran beside, mean over the seeds: processor time on a CPU, wall time on a GPU.
        peak: Peak memory of training, MiB, mean over the seeds.
        peak_ratio: The same over the plain student's.
        diverged: Seeds whose loss became infinite or undefined.
        loss_ratio: Distillation loss over the student's own loss, mean over the epochs in which the first is above
            zero, median over the seeds.
    """

    factor: float | None
    values: dict[int, float]
    mAP: Spread
    metrics: dict[str, float]
    gain: Difference | None = None
    share: float | None = None
    cost: float | None = None
    cost_from: str | None = None
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
        label: The method's name in cells and plans, which may be that of a fragment.
    """

    method: Method
    published: Column | None
    tuned: Column | None
    factor: float | None
    holdout: dict[float, float]
    label: str

    @property
    def columns(self) -> list[Column]:
        """The columns that exist, each once."""
        found = [column for column in (self.published, self.tuned) if column is not None]
        return found[:1] if self.published is self.tuned else found

    @property
    def shown(self) -> Column | None:
        """The tuned column, once it has as many seeds as the published one, else that; no validation image chose it."""
        if self.tuned is None or (self.published is not None and len(self.tuned.values) < len(self.published.values)):
            return self.published or self.tuned
        return self.tuned

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
                f'its loss is {percent:.0f} % of the student’s own on average'
                if percent >= 10
                else f'its loss is {percent:.2g} % of the student’s own on average'
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
        teacher_metrics: The other metrics of the trained teacher.
        students: ``'plain'``, ``'plain_longer'``, ``'plain_as_teacher'`` (for the teacher's number of steps),
            ``'self_distilled'`` → column, those that exist.
        rows: The methods, by the greater gain of their columns.
        controls: Methods that ran with a random teacher or one of shuffled labels.
        seeds: All seeds of students.
        missing: Sentences: what no record exists for.
        records: The records that were used, one per cell, the latest of each.
        holdout_plain: mAP of the plain student on the holdout.
        plan: What was to be run, as the newest record says; None where none does.
        left_out: Reason → cells whose records were not used for it.
        lengths: (teacher's, students') steps times images per step, where both were trained; (0, 0) otherwise.
        longer_as_teacher: The longer plain run is as long as the teacher's training. Then ``students`` has one column
            for both, that of the more seeds, as ``'plain_longer'``.
    """

    name: str
    pair: dict
    teachers: dict[str, float]
    teacher_metrics: dict[str, float]
    students: dict[str, Column]
    rows: list[MethodRow]
    controls: list[Control]
    seeds: tuple[int, ...]
    missing: list[str]
    records: list[Record] = field(repr=False)
    holdout_plain: float | None = None
    plan: dict | None = None
    left_out: dict[str, list[str]] = field(default_factory=dict)
    lengths: tuple[int, int] = (0, 0)
    longer_as_teacher: bool = False

    @property
    def wanted(self) -> set[int]:
        """The seeds that are planned, or, without a plan, those of any student."""
        return set(self.seeds if self.plan is None else self.plan['seeds'])

    def complete(self, column: Column | None) -> bool:
        """Whether a column has figures of all planned seeds."""
        return column is not None and column.gain is not None and self.wanted <= set(column.gain.seeds)

    def ready(self, column: Column | None) -> bool:
        """Whether a column is complete, and of enough seeds for a verdict."""
        return self.complete(column) and len(column.gain.seeds) >= ENOUGH_SEEDS

    @property
    def basis(self) -> str:
        """``'tuned'`` if each method with figures has tuned ones of as many seeds, else ``'published'``.

        Methods are set beside each other on one of the two, never tuned ones beside untuned ones.
        """
        rows = [row for row in self.rows if row.columns]
        done = [
            row.tuned is not None and (row.published is None or row.published.values.keys() <= row.tuned.values.keys())
            for row in rows
        ]
        return 'tuned' if rows and all(done) else 'published'

    def pick(self, row: MethodRow) -> Column | None:
        """The column of a method that is set beside others: that of :attr:`basis`."""
        return getattr(row, self.basis)

    @property
    def tunes(self) -> bool:
        """Whether weights are tuned, by plan or, without one, by the records."""
        if self.plan is None:
            return any(row.holdout for row in self.rows)
        return _tunes(self.plan, self.rows)

    def weights(self, row: MethodRow, column: Column | None) -> str:
        """Which weights a column of a method is of, in words."""
        if column is row.tuned and column is not None:
            return 'tuned'
        return 'published weights, not tuned yet' if self.tunes else 'published weights'

    @property
    def synthetic(self) -> bool:
        """Whether the images are drawn."""
        return bool(self.pair.get('synthetic')) or str(self.pair.get('data', '')).startswith('synthetic')

    @property
    def planned(self) -> int | None:
        """How many methods are planned or have records; None without a plan."""
        if self.plan is None:
            return None
        return len({*self.plan['methods'], *(row.label for row in self.rows)})

    @property
    def longer_teacher(self) -> bool:
        """Whether the teacher saw more images in training than the students."""
        return self.lengths[0] > self.lengths[1]

    @property
    def equal_teacher(self) -> bool:
        """Whether the teacher is known to have seen as many images in training as the students."""
        return self.lengths[0] == self.lengths[1] != 0

    @property
    def as_teacher(self) -> Column | None:
        """The plain student that saw as many images in training as the teacher; the longer run if it is as long."""
        return self.students.get('plain_longer' if self.longer_as_teacher else 'plain_as_teacher')

    def beside_longer(self) -> list[Difference] | None:
        """Of methods that take no longer than the longer plain run: their mAP minus its, over the seeds of both.

        None without a longer run.
        """
        longer = self.students.get('plain_longer')
        if longer is None or longer.cost is None:
            return None
        columns = [self.pick(row) for row in self.rows]
        cheap = [c for c in columns if c is not None and c.cost is not None and c.cost <= longer.cost]
        found = [paired_difference(column.values, longer.values) for column in cheap]
        return [difference for difference in found if difference is not None]

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


def _of_device(records: Sequence[Record]) -> set[str]:
    return {r['device'].split(':')[0] for r in records if r.get('device')}


def _cost(
    records: Sequence[Record], plain: Sequence[Record], timings: Mapping[str, Record]
) -> tuple[float | None, str | None]:
    """Time over the plain student's, and what it was found from (``Column.cost_from``).

    Whole runs are compared within seeds, on the same kind of device, if they ran to their ends.
    """

    def times(runs: Sequence[Record], device: str) -> dict[int, float]:
        key = 'cpu_seconds' if device == 'cpu' else 'train_seconds'
        mine = [r for r in runs if not r['diverged'] and r['device'].split(':')[0] == device and r.get(key)]
        return {r['seed']: r[key] for r in mine}

    role, timing = records[0]['role'], timings.get(records[0]['method'])
    if role == 'method' and timing is not None and _of_device(records) <= _of_device([timing]):
        return float(timing['step_ratio']), 'timing'
    whole = [[r for r in side if not r['diverged']] for side in (records, plain)]
    if role in ('plain', 'plain_longer', 'plain_as_teacher'):
        ratio = mean_ratio(*({r['seed']: r['steps'] * r['batch_size'] for r in side} for side in whole))
        return ratio, None if ratio is None else 'steps'
    ratios = [
        mean_ratio(times(records, device), times(plain, device))
        for device in sorted(_of_device(plain) & _of_device(records))
    ]
    known = [ratio for ratio in ratios if ratio is not None]
    return (known[0], 'runs') if len(known) == 1 else (None, None)


def _loss_ratio(records: Sequence[Record]) -> float | None:
    """``Column.loss_ratio``: epochs after the end of a term's schedule, in which its loss is 0, do not count.

    None where the method's term takes the place of the student's own loss, of which then only rounding is left.
    """
    ratios = []
    for record in records:
        curve = record.get('curve') or {}
        pairs = zip(curve.get('loss') or [], curve.get('distill_loss') or [])
        known = [
            distill / own
            for own, distill in pairs
            if None not in (own, distill) and own > 1e-4 * distill > 0 and math.isfinite(distill)
        ]
        if known and not record['diverged']:
            ratios.append(statistics.fmean(known))
    return statistics.median(ratios) if ratios else None


def _column(
    records: Sequence[Record], plain: Sequence[Record], teacher: float | None, timings: Mapping[str, Record]
) -> Column | None:
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
    cost, cost_from = _cost(records, plain, timings)
    return Column(
        factor=records[0]['factor'],
        values=values,
        mAP=spread(values.values()),
        metrics=_metrics(records),
        gain=gain,
        share=share,
        cost=cost,
        cost_from=cost_from,
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


def _fragments(records: Sequence[Record]) -> dict[str, str]:
    """Name of a method → its fragment, for those whose records say."""
    return {r['method']: r['fragment'] for r in records if r.get('fragment')}


def _controls(students: Sequence[Record], plain: dict[int, float]) -> list[Control]:
    fragments = _fragments(students)
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
            controls.append(
                Control(method_or_new(name, fragments.get(name)), factor, *(paired_difference(*pair) for pair in pairs))
            )
    return controls


def _when(record: Record) -> float:
    """Seconds since 1970 at which a record was finished; 0 if it does not say."""
    try:
        found = datetime.fromisoformat(record.get('finished') or '')
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _newest(records: Sequence[Record], key: str) -> object:
    """The value of the last record that has one; None if none has."""
    return next((record[key] for record in reversed(records) if record.get(key) is not None), None)


def _per_cell(records: Sequence[Record]) -> list[Record]:
    """The last record of each cell."""
    return list({record['cell']: record for record in records}.values())


def _comparable(records: Sequence[Record]) -> tuple[list[Record], dict[str, list[str]]]:
    """The records that can be set beside the newest plain student, and the cells of the others by reason.

    A record is left out if it has another ``basis`` than the newest plain student, another ``tune_basis`` than the
    newest tuning run, or learnt from other weights than those of the teacher whose record is used. What a record does
    not say is not held against it. Of a cell's remaining records the last counts.
    """
    records = sorted(records, key=_when)
    basis = _newest([r for r in records if r['kind'] == 'student' and r['role'] == 'plain'], 'basis')
    tune_basis = _newest([r for r in records if r['kind'] == 'tune'], 'tune_basis')
    rejected: dict[str, list[str]] = {'measured on another basis': [], 'taught by another teacher': []}

    def same(record: Record, key: str, value: object) -> bool:
        return value is None or record.get(key) in (None, value)

    def keep(mine: Sequence[Record], reason: str, test: Callable[[Record], bool]) -> list[Record]:
        kept = [record for record in mine if test(record)]
        cells = {record['cell'] for record in kept}
        rejected[reason] += [record['cell'] for record in _per_cell(mine) if record['cell'] not in cells]
        return kept

    first, second = rejected
    kept = keep(records, first, lambda r: same(r, 'basis', basis) and same(r, 'tune_basis', tune_basis))
    last = {record['cell']: record.get('weights') for record in kept}

    def taught(record: Record) -> bool:
        teacher = record.get('teacher')
        if record['kind'] in ('teacher', 'timing'):
            return True
        if teacher is None:  # a plain student may have inherited parts
            teacher = 'tune' if record['kind'] == 'tune' and 'teacher/tune' in last else 'trained'
        source = f'plain/seed{record["seed"]}' if teacher == 'self' else f'teacher/{teacher}'
        return same(record, 'teacher_weights', last.get(source))

    kept = _per_cell(keep(kept, second, taught))
    return kept, {reason: cells for reason, cells in rejected.items() if cells}


def _lengths(records: Sequence[Record]) -> tuple[int, int]:
    """Images seen in training by the teacher and by a student; 0, 0 where one of them is unknown."""
    teacher = [r for r in records if r['kind'] == 'teacher' and r['teacher'] == 'trained' and r.get('steps')]
    plain = [r for r in records if r['kind'] == 'student' and r['role'] == 'plain' and not r['diverged']]
    if not teacher or not plain:
        return 0, 0
    return tuple(side[0]['steps'] * side[0]['batch_size'] for side in (teacher, plain))


def _self_distilled(students: Sequence[Record], plan: Mapping | None, chosen: Mapping[str, float]) -> list[Record]:
    """The self-distilled students of one method at one factor: the planned and chosen ones if there are such."""
    groups: dict[tuple, list[Record]] = {}
    for record in students:
        if record['role'] == 'self_distilled':
            groups.setdefault((record['method'], record['factor']), []).append(record)
    if not groups:
        return []
    wanted = (plan or {}).get('self_distilled')
    ranked = sorted(groups, key=lambda key: (key[0] == wanted, key[1] == chosen.get(key[0], 1.0), len(groups[key])))
    return groups[ranked[-1]]


def collect(records: Sequence[Record]) -> SettingFigures:
    """The figures of one setting.

    Args:
        records: Finished runs; those without a time stand in the order in which they finished. Of several of one cell
            the last counts that was measured on the same basis as the newest plain student.

    Raises:
        DataError: There are no records, or those of several settings.
        RuntimeError: A student did not start, or was not fed, as the plain one.
    """
    settings = {record['setting'] for record in records}
    if len(settings) != 1:
        raise DataError(f'found records of {len(settings)} settings ({", ".join(sorted(settings))}), expected one')
    records, left_out = _comparable(records)
    check_fairness(records)
    plan = _newest(records, 'plan')
    reported = [record for record in records if record.get('split') == 'val' and record['kind'] != 'timing']
    timings = {r['method']: r for r in records if r['kind'] == 'timing' and r.get('step_ratio')}
    teachers = {r['teacher']: _map(r) for r in reported if r['kind'] == 'teacher'}
    students = [r for r in reported if r['kind'] == 'student']
    plain = [r for r in students if r['role'] == 'plain']
    teacher = teachers.get('trained')
    holdout = _holdout(records)
    mine = [r for r in students if r['role'] == 'method' and r['teacher'] == 'trained']
    names = dict.fromkeys(r['method'] for r in mine) | dict.fromkeys(name for name in holdout if name is not None)
    factors = {factor for name in names for factor in holdout.get(name, {})} | set((plan or {}).get('factors') or ())
    fragments = _fragments(records)
    methods = {name: method_or_new(name, fragments.get(name)) for name in names}
    titles = collections.Counter(method.title for method in methods.values())
    rows = []
    for name, method in methods.items():
        runs = [r for r in mine if r['method'] == name]
        factor = choose_factor(holdout.get(name, {})) if factors <= holdout.get(name, {}).keys() else None
        published = _column([r for r in runs if r['factor'] == 1], plain, teacher, timings)
        tuned = published
        if factor != 1:
            tuned = _column([r for r in runs if r['factor'] == factor], plain, teacher, timings)
        if titles[method.title] > 1:  # two fragments of one method
            method = replace(method, name=name, title=f'{method.title} ({name})')
        origin = next((r['weights_are'] for r in runs if r.get('weights_are')), method.weights_are)
        method = replace(method, weights_are=origin)
        rows.append(MethodRow(method, published, tuned, factor, holdout.get(name, {}), name))
    rows.sort(key=lambda row: (-row.best_gain, row.method.name))
    seeds = tuple(sorted({r['seed'] for r in students}))
    chosen = {row.label: row.factor for row in rows if row.factor is not None}
    of_role = {role: [r for r in students if r['role'] == role] for role in STUDENT_ROLES}
    of_role['self_distilled'] = _self_distilled(students, plan, chosen)
    others = {role: _column(found, plain, teacher, timings) for role, found in of_role.items()}
    lengths, longer = _lengths(reported), others['plain_longer']
    as_long = longer is not None and longer.cost is not None and 0 not in lengths
    as_long = as_long and abs(longer.cost * lengths[1] - lengths[0]) < 0.01 * lengths[0]
    holdout_plain = holdout.get(None, {}).get(None)
    if plan is None:
        missing = _missing(teachers, others, rows, seeds)
    else:
        missing = _planned_and_missing(plan, records, others, rows, holdout_plain is not None, as_long)
    missing += _untimed(plan, rows, timings)
    if as_long:
        same = [column for column in (longer, others.pop('plain_as_teacher')) if column is not None]
        others['plain_longer'] = max(same, key=lambda column: len(column.values))
    return SettingFigures(
        name=settings.pop(),
        pair=dict(next((r['pair'] for r in reported or records if r.get('pair')), {})),
        teachers=teachers,
        teacher_metrics=_metrics([r for r in reported if r['kind'] == 'teacher' and r['teacher'] == 'trained']),
        students={role: column for role, column in others.items() if column is not None},
        rows=rows,
        controls=_controls(students, {r['seed']: _map(r) for r in plain}),
        seeds=seeds,
        missing=missing,
        records=records,
        holdout_plain=holdout_plain,
        plan=plan,
        left_out=left_out,
        lengths=lengths,
        longer_as_teacher=as_long,
    )


def level_with(
    best: MethodRow, rows: Sequence[MethodRow], pick: Callable[[MethodRow], Column | None]
) -> list[MethodRow]:
    """The other methods that are not below ``best`` with the interval of their paired differences clear of zero.

    Args:
        best: A row whose picked column is there.
        rows: It and others; those without the picked column do not count.
        pick: Row → column to compare.
    """
    found = []
    for row in rows:
        column = pick(row)
        if row.method.name != best.method.name and column is not None and column.gain is not None:
            difference = paired_difference(pick(best).values, column.values)
            if difference is None or difference.verdict != 'helps':
                found.append(row)
    return found


_NO_TEACHER = 'The trained teacher has no record, so that shares of the gap are unknown.'


def _students_missing(
    students: Mapping[str, Column | None], titles: Mapping[str, str], seeds: Sequence[int]
) -> list[str]:
    """Sentences about students without a method, title by role, that have no record at all or lack seeds."""
    found = []
    for role, title in titles.items():
        column = students[role]
        lacking = [seed for seed in seeds if column is None or seed not in column.values]
        if column is None:
            found.append(f'No record of a {title}.')
        elif lacking:
            found.append(f'The {title} lacks {_seeds(lacking)}.')
    return found


def _missing(
    teachers: Mapping[str, float],
    students: Mapping[str, Column | None],
    rows: Sequence[MethodRow],
    seeds: Sequence[int],
) -> list[str]:
    """Sentences about cells without a record, as far as the others let one expect them."""
    found = [] if 'trained' in teachers else [_NO_TEACHER]
    students_of = dict(plain='plain student', plain_longer='longer plain run', self_distilled='self-distilled student')
    found += _students_missing(students, students_of, seeds)
    factors = sorted({factor for row in rows for factor in row.holdout})
    lacking_by: dict[str, list[str]] = {}
    for row in rows:
        parts = []
        untried = [factor for factor in factors if factor not in row.holdout]
        if factors and untried:
            parts.append(f'tuning at {", ".join(f"{factor:g}" for factor in untried)}')
        wanted = {1: row.published} if row.factor in (None, 1) else {1: row.published, row.factor: row.tuned}
        for factor, column in wanted.items():
            parts += _lacking(f'factor {factor:g}', seeds, () if column is None else column.values)
        if parts:
            lacking_by.setdefault('; '.join(parts), []).append(row.method.title)
    for parts, titles in lacking_by.items():
        found.append(f'{enumerate_names(titles)} {"lack" if len(titles) > 1 else "lacks"} {parts}.')
    if rows and not factors:
        found.append('No tuning was recorded: the tuned columns are empty.')
    return found


def _tunes(plan: Mapping, rows: Sequence[MethodRow]) -> bool:
    """Whether weights are to be tuned: where the newest run asked for published ones, if some were tuned before."""
    return bool(plan.get('factors')) and (plan.get('weights') != 'published' or any(row.holdout for row in rows))


def _planned_and_missing(
    plan: Mapping,
    records: Sequence[Record],
    students: Mapping[str, Column | None],
    rows: Sequence[MethodRow],
    plain_tuned: bool,
    longer_as_teacher: bool,
) -> list[str]:
    """Sentences about what is planned and has no record, but for timings; nothing else."""
    seeds, factors = list(plan['seeds']), list(plan.get('factors') or [])
    tunes = _tunes(plan, rows)
    teachers = {record['teacher'] for record in records if record['kind'] == 'teacher'}
    found = [] if 'trained' in teachers else [_NO_TEACHER]
    if plan.get('shuffled_teacher') and 'shuffled' not in teachers:
        found.append('The teacher of shuffled labels has no record.')
    wanted = dict(plain='plain student')
    wanted |= dict(plain_longer='longer plain run') if plan.get('longer') else {}
    wanted |= dict(self_distilled='self-distilled student') if plan.get('self_distilled') else {}
    found += _students_missing(students, wanted, seeds)
    trained = any(r['kind'] == 'teacher' and r['teacher'] == 'trained' and r.get('steps') for r in records)
    if plan.get('as_long_as_teacher') and trained and students['plain_as_teacher'] is None and not longer_as_teacher:
        found.append('No record of a plain student trained for as long as the teacher.')
    if tunes and not plain_tuned:
        found.append('The plain student lacks its run on the holdout.')
    known, fragments = {row.label: row for row in rows}, _fragments(records)
    lacking_by: dict[str, list[str]] = {}
    for name in plan['methods']:
        row, parts, columns = known.get(name), [], {}
        if not tunes or plan.get('weights') != 'tuned':
            columns[1.0] = row and row.published
        if tunes:
            untried = [factor for factor in factors if row is None or factor not in row.holdout]
            if untried:
                parts.append(f'tuning at {", ".join(f"{factor:g}" for factor in untried)}')
            elif row.factor is not None:
                columns[row.factor] = row.tuned
        for factor, column in columns.items():
            parts += _lacking(f'factor {factor:g}', seeds, () if column is None else column.values)
        for teacher, title in (('random', 'random weights'), ('shuffled', 'shuffled labels')):
            factor = 1.0 if not tunes else row and row.factor
            if name in (plan.get(f'{teacher}_teacher') or ()) and factor is not None:
                there = [
                    r['seed']
                    for r in records
                    if (r['kind'], r['role'], r['teacher']) == ('student', 'method', teacher)
                    and (r['method'], r['factor']) == (name, factor)
                ]
                parts += _lacking(f'a teacher of {title} at factor {factor:g}', seeds, there)
        if parts:
            title = row.method.title if row else method_or_new(name, fragments.get(name)).title
            lacking_by.setdefault('; '.join(parts), []).append(title)
    for parts, titles in lacking_by.items():
        found.append(f'{enumerate_names(titles)} {"lack" if len(titles) > 1 else "lacks"} {parts}.')
    return found


def _untimed(plan: Mapping | None, rows: Sequence[MethodRow], timings: Mapping[str, Record]) -> list[str]:
    """A sentence about methods, planned or with figures, that have no timing."""
    known = {row.label: row.method.title for row in rows if plan is not None or row.columns}
    known = {name: method_or_new(name).title for name in (plan or {}).get('methods', ())} | known
    titles = [title for name, title in known.items() if name not in timings]
    if not titles:
        return []
    if len(titles) == len(known) > 1:
        return ['No timing was recorded: the time of all methods is rough or unknown.']
    many = len(titles) > 1
    return [
        f'{enumerate_names(titles)} {"lack" if many else "lacks"} a timing: {"their" if many else "its"} time is rough '
        'or unknown.'
    ]


def _lacking(what: str, seeds: Sequence[int], there: Iterable[int]) -> list[str]:
    """``['factor 1 with seeds 0, 2']``; nothing where all seeds are there."""
    there = set(there)
    lacking = [seed for seed in seeds if seed not in there]
    every = len(lacking) == len(seeds) and len(seeds) > 1
    return [f'{what} with {"all seeds" if every else _seeds(lacking)}'] if lacking else []
