"""Several settings side by side: the README's table, and which method to take."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kd_det.bench import wording as say
from kd_det.bench.catalogue import Method
from kd_det.bench.figures import ENOUGH_SEEDS, Column, MethodRow, SettingFigures, collect, level_with
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
    def cost(self) -> float | None:
        known = [column.cost for column in self.columns.values() if column.cost is not None]
        return statistics.fmean(known) if known else None

    @property
    def clear(self) -> int:
        """Settings in which the gain is above zero with its interval."""
        return [column.verdict for column in self.columns.values()].count('helps')

    @property
    def helps(self) -> bool:
        """Above zero with the interval in more than half of its settings, below zero with it in none, and on average.

        In one or two settings: in all of them. Settings with too few seeds for a verdict have no voice.
        """
        judged = [c for c in self.columns.values() if c.verdict != 'unclear' or len(c.gain.seeds) >= ENOUGH_SEEDS]
        return 2 * self.clear > len(judged) and all(c.verdict != 'hurts' for c in judged) and self.score > 0

    @property
    def per_time(self) -> float | None:
        """Mean share of the gap for each training time of the plain student that comes on top; None if unknown.

        Time that cannot be told from none counts as a hundredth.
        """
        known = [(c.share, c.cost) for c in self.columns.values()]
        if any(None in pair for pair in known):
            return None
        share, cost = (statistics.fmean(side) for side in zip(*known))
        return share / max(cost - 1, 0.01)


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
    for role, title in (
        ('plain_longer', 'plain student, longer'),
        ('plain_as_teacher', 'plain student, as long as the teacher'),
        ('self_distilled', 'self-distilled student'),
    ):
        if any(role in figures.students for figures in settings.values()):
            columns = [figures.students.get(role) for figures in settings.values()]
            rows.append([title, *(_cell(column, figures) for column, figures in zip(columns, settings.values()))])
    tuned = {s: {row.method.name for row in f.rows if row.shown is row.tuned} for s, f in settings.items()}
    untuned = False
    for standing in _standings(settings, lambda row: row.shown):
        cells = []
        for name in settings:
            column = standing.columns.get(name)
            mark = ''
            if column is not None and standing.method.name not in tuned[name]:
                mark, untuned = ' ‡', True
            cells.append(_cell(column, settings[name]) + mark)
        rows.append([standing.method.title, *cells])
    table = markdown_table(['', *titles.values()], rows)
    about = (
        'Rows below the first two: mAP minus that of the plain student, points, mean over seeds ± half width of its '
        '95 % interval (Student’s t, paired by seed); bold: clear of zero, each by itself. '
        'Per seed the same steps, first weights, and images in the same order; all methods of a column share '
        'the plain runs. '
        + ('The weight of each method was chosen on a part of the training images. ' if any(tuned.values()) else '')
        + ' '.join([*_seeds_of(settings, titles), *_longer_teachers(settings, titles)])
    )
    return f'{table}\n\n{about}' + (' ‡: published weights, not tuned.' if untuned else '')


def _cell(column: Column | None, figures: SettingFigures) -> str:
    """A gain; with the number of seeds where others have more."""
    text = say.gain_half(column.gain if column else None)
    if column is None or column.gain is None or column.gain.half is None:
        return text
    seeds = len(column.gain.seeds)
    return text + (f' ({seeds} seeds)' if seeds < len(figures.seeds) else '')


def _seeds_of(settings: Mapping[str, SettingFigures], titles: Mapping[str, str]) -> list[str]:
    counts = {name: len(figures.seeds) for name, figures in settings.items()}
    if len(set(counts.values())) == 1:
        count = next(iter(counts.values()))
        return [f'{count} seed{"s" if count != 1 else ""}.']
    return [f'Seeds: {", ".join(f"{titles[name]} {count}" for name, count in counts.items())}.']


def _longer_teachers(settings: Mapping[str, SettingFigures], titles: Mapping[str, str]) -> list[str]:
    """A sentence on the settings whose gap is one of training length, too."""
    mine = [name for name, figures in settings.items() if figures.longer_teacher]
    if not mine:
        return []
    where = '' if len(mine) == len(settings) else f' of {say.enumerate_names([titles[name] for name in mine])}'
    return [f'The teacher{"s" if len(mine) > 1 else ""}{where} trained for longer than the students.']


# --- which method -----------------------------------------------------------------------------------------------------

#: How names of configs and titles begin to call detectors.
_DETECTORS = re.compile(
    'cascade|mask|faster|retina|fcos|gfl|ssd|atss|yolox|yolo|paa|solo|tood|centernet|deformable|dino|detr',
    re.IGNORECASE,
)


def _detector(text: str) -> str | None:
    """The first detector that a text names: ``faster`` for Faster R-CNN."""
    found = _DETECTORS.search(text)
    return found and found[0].lower()


def _heads_differ(name: str, pair: Mapping) -> bool:
    """Whether teacher and student are detectors of different families, by the setting's name, configs or title."""
    if 'hetero' in name:
        return True
    configs = [re.split(r'[/:]', str(pair.get(key) or ''))[-1] for key in ('teacher', 'student')]
    title = re.split(r' to | → ', str(pair.get('title') or ''))
    for sides in (configs, title):
        known = [_detector(side) for side in sides]
        if len(known) == 2 and None not in known:
            return known[0] != known[1]
    return False


def choice_section(records_by_setting: Records) -> str:
    """Which method to take, one sentence per question, each with the figures of its row.

    Methods are ranked by the mean of their gains over the settings in which they ran, each as a share of the gap to
    the teacher. One that ran in more than half of the settings goes before others. None is named as an answer that is
    not shown to help: above zero with its interval in more than half of its settings, below zero with it in none.

    Args:
        records_by_setting: Setting → its records.

    Returns:
        Markdown: a list of at most twelve sentences, and how to read them.

    Raises:
        DataError: A setting has no records, or those of another.
        RuntimeError: A student did not start, or was not fed, as the plain one.
    """
    settings = {name: collect(records) for name, records in records_by_setting.items()}
    shown = _standings(settings, lambda row: row.shown)
    if not shown:
        return 'No method has been compared with a plain student yet.'
    total = len(settings)
    helping = [s for s in _wide(shown, total) if s.helps] or [s for s in _wide(shown, 0) if s.helps]
    over = ' over all settings' if total > 1 else ''
    lines = []
    if helping:
        first = helping[0]
        lines.append(
            f'**The largest gain{over}:** {_name(first)}: {_figures(first.columns, total)}. {_level(first, settings)}'
        )
    else:
        lines.append(f'**The largest gain{over}:** {_none(shown, total)}')
    priced = [s for s in helping if s.per_time is not None]
    if priced:
        best = max(priced, key=lambda s: s.per_time)
        lines.append(
            f'**The most for the time:** {_name(best)}, {say.share(best.per_time)} of the gap per training time of '
            f'the plain student added: {_figures(best.columns, total)}.'
        )
    priced = [s for s in helping if s.cost is not None]
    if priced:
        cheap = min(priced, key=lambda s: s.cost)
        lines.append(f'**The cheapest that is shown to help:** {_name(cheap)}: {_figures(cheap.columns, total)}.')
    differing = {name: f for name, f in settings.items() if _heads_differ(name, f.pair)}
    logits = [s for s in shown if s.method.family == 'logits']
    boxes = [s for s in shown if s.method.family in ('boxes', 'mixed')]
    for words, mine, among in (
        ('**If the heads differ**', _standings(differing, lambda row: row.shown), len(differing)),
        ('**If you want class scores only**', logits, total),
        ('**If teacher and student have the same kind of head, with boxes**', boxes, total),
    ):
        if mine:
            lines.append(f'{words}: {_best(mine, among, total)}')
    untuned = _standings(settings, lambda row: row.published)
    if untuned and any(row.tuned is not None for figures in settings.values() for row in figures.rows):
        lines.append(f'**If you cannot tune the weight:** {_best(untuned, total, total, own_weight=True)}')
    for role, words in (
        ('plain_longer', '**Without a teacher**, more steps alone give'),
        ('plain_as_teacher', '**Without a teacher, trained for as long as it**, the plain student gains'),
        ('self_distilled', '**With the student as its own teacher**, it gains'),
    ):
        gains = {n: f.students[role] for n, f in settings.items() if role in f.students and f.students[role].gain}
        if gains:
            lines.append(f'{words} {_figures(gains, total)}.' + (_beside(settings) if role == 'plain_longer' else ''))
    hurting = [s for s in shown if any(column.verdict == 'hurts' for column in s.columns.values())]
    if hurting:
        names = [f'{s.method.title} ({_worst(s, total)})' for s in hurting]
        where = ' in a setting at least' if total > 1 else ''
        lines.append(f'**Avoid**, below plain with the interval{where}: {say.enumerate_names(names)}.')
    doubtful = [s for s in shown if s not in hurting and not s.clear]
    doubtful = [s for s in doubtful if all(len(c.gain.seeds) >= ENOUGH_SEEDS for c in s.columns.values())]
    if doubtful:
        names = [f'{s.method.title} ({_worst(s, total)})' for s in doubtful]
        lines.append(f'**Not shown to help** wherever it ran: {say.enumerate_names(names)}.')
    return '\n'.join(f'- {line}' for line in lines) + f'\n\n{_reading(settings)}'


def _beside(settings: Mapping[str, SettingFigures]) -> str:
    """What methods give at the cost of the longer plain run, over all settings."""
    found = [figures.beside_longer() for figures in settings.values()]
    known = [difference for differences in found for difference in differences or ()]
    over = ', counted over the settings' if len([each for each in found if each]) > 1 else ''
    return f' {say.beside(known)[0].upper()}{say.beside(known)[1:]}{over}.'


def _reading(settings: Mapping[str, SettingFigures]) -> str:
    """How to read the sentences, and what not to believe them."""
    titles = _titles(settings)
    columns = [c for f in settings.values() for row in f.rows for c in row.columns]
    parts = [
        'mAP points over the plain student, with 95 % intervals; "gap" is that to the teacher, "time" that of a plain '
        'training.',
        'Time with a ~ is rough.' if any(c.cost_from == 'runs' for c in columns) else '',
        'Tuned weights, or published ones where none were tuned.',
        'Shown to help: above zero with the interval in more than half of the settings it ran in with enough '
        'seeds, below it in none.'
        if len(settings) > 1
        else 'Shown to help: above zero with the interval.',
        'The best of many is flattered by being picked on the split that it is reported on, and all methods of a '
        'setting share its plain runs.',
        *_longer_teachers(settings, titles),
        f'The settings: {"; ".join(f"`{name}` {title}" for name, title in titles.items())}.',
        'Methods that ran in no more than half of them come after the others.' if len(settings) > 1 else '',
    ]
    return ' '.join(part for part in parts if part)


def _best(standings: Sequence[_Standing], among: int, total: int, own_weight: bool = False) -> str:
    """The best that is shown to help, those of more than half of ``among`` settings first; or that there is none."""
    ranked = _wide(standings, among)
    best = next((s for s in [*ranked, *_wide(standings, 0)] if s.helps), None)
    if best is None:
        return _none(standings, total)
    ours = ' at the weight of this repository’s fragment' if own_weight and best.method.weights_are == 'ours' else ''
    return f'{_name(best)}{ours}: {_figures(best.columns, total)}.'


def _none(standings: Sequence[_Standing], total: int) -> str:
    """That none is shown to help, with the row of the largest mean."""
    judged = [s for s in standings if any(c.gain.half is not None for c in s.columns.values())]
    top = _wide(judged or standings, total)[0]
    names = say.few([s.method.title for s in standings])
    said = f'none of {names} is shown to help' if len(standings) > 1 else f'{names} is not shown to help'
    return f'{said}; the largest mean is that of {top.method.title}: {_figures(top.columns, total)}.'


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
        extra += [] if column.cost is None else [f'{say.cost(column.cost, column.cost_from)} × time']
        where = f' on `{name}`' if settings > 1 else ''
        parts.append(f'{say.gain(column.gain)}{where}' + (f' ({", ".join(extra)})' if extra else ''))
    if len(columns) > 3:
        mean = statistics.fmean(column.gain.mean for column in columns.values())
        clear = [column.verdict for column in columns.values()].count('helps')
        about = f'{say.signed(mean)}, the mean of {len(columns)} settings, clear of zero in {clear}'
        return f'{about}, from {" to ".join(parts)}'
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


def _worst(standing: _Standing, settings: int) -> str:
    name, column = min(standing.columns.items(), key=lambda item: item[1].gain.mean)
    return say.gain(column.gain) + (f' on `{name}`' if settings > 1 else '')
