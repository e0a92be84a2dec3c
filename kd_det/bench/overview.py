"""Several settings side by side: the README's table, and which method to take."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kd_det.bench import wording as say
from kd_det.bench.catalogue import Method
from kd_det.bench.figures import Column, MethodRow, SettingFigures, collect, level_with
from kd_det.visualization import markdown_table

__all__ = ['choice_section', 'readme_section']

Records = Mapping[str, Sequence[Mapping]]


@dataclass(frozen=True)
class _Standing:
    """A method over the settings in which it was compared with the plain student."""

    method: Method
    columns: dict[str, Column]
    gaps: dict[str, float | None]

    @property
    def score(self) -> float:
        """Mean gain as a share of the gap to the teacher; in points where some setting has no gap."""
        whole = all(gap is not None and gap > 0 for gap in self.gaps.values())
        return statistics.fmean(c.gain.mean / (self.gaps[s] if whole else 1) for s, c in self.columns.items())

    @property
    def gain(self) -> float:
        return statistics.fmean(column.gain.mean for column in self.columns.values())

    @property
    def cost(self) -> float | None:
        known = [column.cost for column in self.columns.values() if column.cost is not None]
        return statistics.fmean(known) if known else None

    @property
    def helps(self) -> bool:
        return all(column.verdict == 'helps' for column in self.columns.values())


def _standings(settings: Mapping[str, SettingFigures], pick: Callable[[MethodRow], Column | None]) -> list[_Standing]:
    """The methods: those of the most settings first, then by score."""
    gaps = {name: figures.gap for name, figures in settings.items()}
    methods: dict[str, Method] = {}
    columns: dict[str, dict[str, Column]] = {}
    for name, figures in settings.items():
        for row in figures.rows:
            column = pick(row)
            if column is not None and column.gain is not None:
                methods.setdefault(row.method.name, row.method)
                columns.setdefault(row.method.name, {})[name] = column
    found = [_Standing(methods[name], mine, gaps) for name, mine in columns.items()]
    return sorted(found, key=lambda standing: (-len(standing.columns), -standing.score, standing.method.name))


def _titles(settings: Mapping[str, SettingFigures]) -> dict[str, str]:
    """Setting → networks and data, as the records say, or its name."""
    keys = ('title', 'data')
    return {s: ', '.join(str(f.pair[k]) for k in keys if f.pair.get(k)) or s for s, f in settings.items()}


def readme_section(records_by_setting: Records) -> str:
    """The README's table: methods in rows, settings in columns, the tuned method's gain in cells.

    Args:
        records_by_setting: Setting → its records.

    Returns:
        Markdown: the table and what its cells mean.

    Raises:
        DataError: A setting has no records, or those of another.
        RuntimeError: A student did not start, or was not fed, as the plain one.
    """
    settings = {name: collect(records) for name, records in records_by_setting.items()}
    titles = _titles(settings)
    rows = [['teacher, mAP', *(say.percent(f.teachers.get('trained')) for f in settings.values())]]
    rows.append(['plain student, mAP', *(say.percent(f.plain.mAP if f.plain else None) for f in settings.values())])
    for role, title in (('plain_longer', 'plain student, longer'), ('self_distilled', 'self-distilled student')):
        if any(role in figures.students for figures in settings.values()):
            columns = [figures.students.get(role) for figures in settings.values()]
            rows.append([title, *(say.gain_half(column.gain if column else None) for column in columns)])
    tuned = {name: {row.method.name for row in f.rows if row.tuned is not None} for name, f in settings.items()}
    untuned = False
    for standing in _standings(settings, lambda row: row.shown):
        cells = []
        for name in settings:
            column = standing.columns.get(name)
            mark = ''
            if column is not None and standing.method.name not in tuned[name]:
                mark, untuned = ' ‡', True
            cells.append(say.gain_half(column.gain if column else None) + mark)
        rows.append([standing.method.title, *cells])
    table = markdown_table(['', *titles.values()], rows)
    about = (
        'Rows below the first two: mAP minus that of the plain student, points, mean over seeds ± half width of its '
        '95 % interval (Student’s t, paired by seed); bold: clear of zero. Same steps, batches and first weights per '
        'seed. '
        + ('The weight of each method was chosen on a part of the training images. ' if any(tuned.values()) else '')
        + ' '.join(_seeds_of(settings, titles))
    )
    return f'{table}\n\n{about}' + (' ‡: published weights, not tuned.' if untuned else '')


def _seeds_of(settings: Mapping[str, SettingFigures], titles: Mapping[str, str]) -> list[str]:
    counts = {name: len(figures.seeds) for name, figures in settings.items()}
    if len(set(counts.values())) == 1:
        count = next(iter(counts.values()))
        return [f'{count} seed{"s" if count != 1 else ""}.']
    return [f'Seeds: {", ".join(f"{titles[name]} {count}" for name, count in counts.items())}.']


# --- which method -----------------------------------------------------------------------------------------------------


def choice_section(records_by_setting: Records) -> str:
    """Which method to take, one sentence per question, each with the figures of its row.

    Methods are ranked by the mean of their gains over the settings in which they ran, each as a share of the gap to
    the teacher. One that ran in more than half of the settings goes before others, and of these one that is clear of
    zero in all its settings.

    Args:
        records_by_setting: Setting → its records.

    Returns:
        Markdown: a list of at most ten sentences, and how to read them.

    Raises:
        DataError: A setting has no records, or those of another.
        RuntimeError: A student did not start, or was not fed, as the plain one.
    """
    settings = {name: collect(records) for name, records in records_by_setting.items()}
    shown = _standings(settings, lambda row: row.shown)
    if not shown:
        return 'No method has been compared with a plain student yet.'
    wide = _wide(shown, len(settings))
    helping = [s for s in wide if s.helps]
    first = (helping or wide)[0]
    lines = []
    if not helping:
        lines.append('**No method is clear of zero in every setting it ran in**: what follows are the largest means.')
    over = ' over all settings' if len(settings) > 1 else ''
    figures = _figures(first.columns, len(settings))
    lines.append(f'**The largest gain{over}:** {_name(first)}: {figures}. {_level(first, settings)}')
    priced = [s for s in helping or wide if s.cost is not None]
    if priced:
        best = max(priced, key=lambda s: s.gain / s.cost)
        lines.append(
            f'**The most for the time:** {_name(best)}, {say.signed(best.gain / best.cost)} points per training time '
            f'of the plain student: {_figures(best.columns, len(settings))}.'
        )
    priced = [s for s in helping if s.cost is not None]
    if priced:
        cheap = min(priced, key=lambda s: s.cost)
        lines.append(
            f'**The cheapest that is clear of zero:** {_name(cheap)}: {_figures(cheap.columns, len(settings))}.'
        )
    for families, words in (
        (('feature', 'relation'), '**If the heads differ** (maps alone are compared)'),
        (('logits',), '**If you want class scores only**'),
        (('boxes', 'mixed'), '**If teacher and student have the same kind of head, with boxes**'),
    ):
        mine = _wide([s for s in shown if s.method.family in families], len(settings))
        if mine:
            best = next((s for s in mine if s.helps), mine[0])
            doubt = '' if best.helps else ' None of them is clear of zero wherever it ran.'
            lines.append(f'{words}: {_name(best)}: {_figures(best.columns, len(settings))}.{doubt}')
    untuned = _wide(_standings(settings, lambda row: row.published), len(settings))
    if untuned and any(row.tuned is not None for figures in settings.values() for row in figures.rows):
        best = next((s for s in untuned if s.helps), untuned[0])
        ours = ' at the weight of this repository’s fragment' if best.method.weights_are == 'ours' else ''
        lines.append(
            f'**If you cannot tune the weight:** {_name(best)}{ours}: {_figures(best.columns, len(settings))}.'
        )
    for role, words in (
        ('plain_longer', '**Without a teacher**, more steps alone give'),
        ('self_distilled', '**With the student as its own teacher**'),
    ):
        gains = {n: f.students[role] for n, f in settings.items() if role in f.students and f.students[role].gain}
        if gains:
            lines.append(f'{words}: {_figures(gains, len(settings))}.')
    hurting = [s for s in shown if any(column.verdict == 'hurts' for column in s.columns.values())]
    doubtful = [s for s in shown if s not in hurting and all(c.verdict == 'unclear' for c in s.columns.values())]
    doubtful = [s for s in doubtful if any(c.gain.half is not None for c in s.columns.values())]
    if hurting:
        names = [f'{s.method.title} ({_worst(s)})' for s in hurting]
        lines.append(f'**Avoid**, below plain with the interval: {say.enumerate_names(names)}.')
    if doubtful:
        names = [f'{s.method.title} ({_worst(s)})' for s in doubtful]
        lines.append(f'**No effect that the seeds show**: {say.enumerate_names(names)}.')
    reading = (
        'mAP points over the plain student, with 95 % intervals; "gap" is that to the teacher, "time" that of a plain '
        'training. Tuned weights, or published ones where none were tuned. The settings: '
        + '; '.join(f'`{name}` {title}' for name, title in _titles(settings).items())
        + '.'
        + (' Methods that ran in no more than half of them come after the others.' if len(settings) > 1 else '')
    )
    return '\n'.join(f'- {line}' for line in lines) + f'\n\n{reading}'


def _wide(standings: Sequence[_Standing], settings: int) -> list[_Standing]:
    """Those that ran in more than half of the settings, or all if there is none; by score."""
    wide = [s for s in standings if 2 * len(s.columns) > settings] or standings
    return sorted(wide, key=lambda s: (-s.score, s.method.name))


def _name(standing: _Standing) -> str:
    needs = f' (needs {standing.method.needs})' if standing.method.needs else ''
    return f'{standing.method.title}{needs}'


def _figures(columns: Mapping[str, Column], settings: int) -> str:
    """A row of each setting: gain, interval, share of the gap, time; the setting's name where there are several.

    Of more than three settings the mean, and the rows of the smallest and the largest gain.
    """
    parts, shown = [], dict(columns)
    if len(columns) > 3:
        order = sorted(columns, key=lambda name: columns[name].gain.mean)
        shown = {name: columns[name] for name in (order[0], order[-1])}
    for name, column in shown.items():
        extra = [] if column.share is None else [f'{say.share(column.share)} of the gap']
        extra += [] if column.cost is None else [f'{say.ratio(column.cost)} × time']
        where = f' on `{name}`' if settings > 1 else ''
        parts.append(f'{say.gain(column.gain)}{where}' + (f' ({", ".join(extra)})' if extra else ''))
    if len(columns) > 3:
        mean = statistics.fmean(column.gain.mean for column in columns.values())
        return f'{say.signed(mean)}, the mean of {len(columns)} settings, from {" to ".join(parts)}'
    return '; '.join(parts)


def _level(best: _Standing, settings: Mapping[str, SettingFigures]) -> str:
    """What the seeds do not tell from the best, in each of its settings; of more than three, in all of them."""
    level: dict[str, list[str]] = {}
    for name in best.columns:
        rows = settings[name].rows
        mine = next(row for row in rows if row.method.name == best.method.name)
        level[name] = [row.method.title for row in level_with(mine, rows)]
    if len(level) > 3:
        everywhere = [title for title in next(iter(level.values())) if all(title in names for names in level.values())]
        return f'Nowhere clearly below it: {say.few(everywhere)}.'
    several = len(settings) > 1
    parts = [say.few(titles) + (f' on `{name}`' if several else '') for name, titles in level.items()]
    return f'Not clearly below it: {"; ".join(parts)}.'


def _worst(standing: _Standing) -> str:
    return say.gain(min((column.gain for column in standing.columns.values()), key=lambda gain: gain.mean))
