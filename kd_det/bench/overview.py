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


#: In a sentence or a table more rows are drawn together.
_MOST_SETTINGS, _MOST_ROWS = 3, 16


def _compared(figures: SettingFigures) -> dict[str, tuple[MethodRow, Column]]:
    """Method → row and column, of those that are set beside each other in a setting; by gain."""
    known = [(row, figures.pick(row)) for row in figures.rows]
    known = [(row, column) for row, column in known if column is not None and column.gain is not None]
    known.sort(key=lambda pair: (-pair[1].gain.mean, pair[0].method.name))
    return {row.method.name: (row, column) for row, column in known}


def _split(settings: Mapping[str, SettingFigures]) -> tuple[dict[str, SettingFigures], dict[str, SettingFigures]]:
    """The settings to compare methods on, and the small ones, which show that a few methods work elsewhere, too.

    Small is one of other networks, with less than half as many methods as the largest.
    """
    most = max((len(_compared(figures)) for figures in settings.values()), default=0)
    few = {name: figures for name, figures in settings.items() if 2 * len(_compared(figures)) < most}
    known = {_networks(name, figures) for name, figures in settings.items() if name not in few}
    small = {name: figures for name, figures in few.items() if _networks(name, figures) not in known}
    return {name: figures for name, figures in settings.items() if name not in small}, small


def _weights(figures: SettingFigures) -> str:
    """Which weights the compared columns of a setting are of."""
    return 'tuned' if figures.basis == 'tuned' else 'published weights'


def _titles(settings: Mapping[str, SettingFigures]) -> dict[str, str]:
    """Setting → networks and data, as the records say, or its name."""
    keys = ('title', 'data')
    return {s: ', '.join(str(f.pair[k]) for k in keys if f.pair.get(k)) or s for s, f in settings.items()}


def readme_section(records_by_setting: Records) -> str:
    """The README's table: methods in rows, settings in columns, the method's gain in cells.

    A column is tuned if all its methods are, else all of it has published weights. Settings with few methods have a
    table of their own below. Of many methods those that are nowhere clear of zero and ran in few settings are named in
    a sentence.

    Args:
        records_by_setting: Setting → its records.

    Returns:
        Markdown: the tables and what their cells mean.

    Raises:
        DataError: A setting has no records, or those of another.
        RuntimeError: A student did not start, or was not fed, as the plain one.
    """
    settings, small = _split({name: collect(records) for name, records in records_by_setting.items()})
    titles = _titles(settings)
    rows = [['teacher, mAP', *(say.percent(f.teachers.get('trained')) for f in settings.values())]]
    rows.append(['plain student, mAP', *(say.percent(f.plain.mAP if f.plain else None) for f in settings.values())])
    for role, title in (
        ('plain_longer', 'plain student, longer'),
        ('plain_as_teacher', 'plain student, as long as the teacher'),
        ('self_distilled', 'self-distilled student'),
    ):
        if any(role in figures.students for figures in settings.values()):
            cells = [
                'as above'
                if role == 'plain_as_teacher' and figures.longer_as_teacher
                else _cell(figures.students.get(role), figures)
                for figures in settings.values()
            ]
            rows.append([title, *cells])
    compared = {name: _compared(figures) for name, figures in settings.items()}
    methods = _by_settings(compared, settings)
    few = methods if len(methods) <= _MOST_ROWS else [m for m in methods if _speaks(m, compared)]
    ours = [m for m in few if any(m in mine and mine[m][0].method.weights_are == 'ours' for mine in compared.values())]
    for method in few:
        row = next(mine[method][0] for mine in compared.values() if method in mine)
        cells = [_cell(mine[method][1] if method in mine else None, settings[name]) for name, mine in compared.items()]
        rows.append([row.method.title + (' †' if method in ours and len(ours) < len(few) else ''), *cells])
    table = markdown_table(['', *(f'{title}; {_weights(settings[name])}' for name, title in titles.items())], rows)
    parts = [
        'Rows below the first two: mAP minus that of the plain student, points, mean over seeds ± half width of its '
        f'95 % interval (Student’s t, paired by seed; none with less than {ENOUGH_SEEDS} seeds); bold: clear of zero, '
        'each by itself. Per seed the same steps, first weights, and images in the same order; all methods of a column '
        'share the plain runs.',
        _ours_said(len(ours), len(few)),
        'Tuned: the factor of each method’s weights was chosen on a part of the training images.'
        if any(f.basis == 'tuned' for f in settings.values())
        else '',
        'As above: the longer run is as long as the teacher’s training.' if _as_above(settings) else '',
        *[f'{titles[name]}: not all tuned runs are there yet.' for name, f in settings.items() if _not_yet(f)],
        *_seeds_of(settings, titles),
        *_longer_teachers(settings, titles),
        _rest([m for m in methods if m not in few], compared, settings),
    ]
    return '\n\n'.join([table, ' '.join(part for part in parts if part), *_small_table(small)])


def _as_above(settings: Mapping[str, SettingFigures]) -> bool:
    """Whether some settings have one longer run, of the teacher's length, and others two."""
    two = any('plain_as_teacher' in figures.students for figures in settings.values())
    return two and any(figures.longer_as_teacher for figures in settings.values())


def _by_settings(
    compared: Mapping[str, Mapping[str, tuple[MethodRow, Column]]], settings: Mapping[str, SettingFigures]
) -> list[str]:
    """Names of the methods: those of the most settings first, then by their mean share of the gap (or gain)."""
    gaps = {name: figures.gap for name, figures in settings.items()}
    whole = all(gap is not None and gap > 0 for gap in gaps.values())
    scores: dict[str, list[float]] = {}
    for name, mine in compared.items():
        for method, (_, column) in mine.items():
            scores.setdefault(method, []).append(column.gain.mean / (gaps[name] if whole else 1))
    return sorted(scores, key=lambda method: (-len(scores[method]), -statistics.fmean(scores[method]), method))


def _speaks(method: str, compared: Mapping[str, Mapping[str, tuple[MethodRow, Column]]]) -> bool:
    """Whether a method is clear of zero somewhere, or ran in more than half of the settings, one of several."""
    mine = [found[method][1] for found in compared.values() if method in found]
    clear = any(column.verdict != 'unclear' and len(column.gain.seeds) >= ENOUGH_SEEDS for column in mine)
    return clear or (len(compared) > 1 and 2 * len(mine) > len(compared))


def _rest(
    methods: Sequence[str],
    compared: Mapping[str, Mapping[str, tuple[MethodRow, Column]]],
    settings: Mapping[str, SettingFigures],
) -> str:
    """A sentence with the figures of methods that have no row."""
    parts = []
    for name, mine in compared.items():
        found = [mine[m] for m in methods if m in mine]
        names = [f'{row.method.title} {_cell(column, settings[name])}' for row, column in found]
        if names:
            parts.append(f'on `{name}` {", ".join(names)}')
    return f'Not in the table, as not clear of zero: {"; ".join(parts)}.' if parts else ''


def _ours_said(ours: int, methods: int) -> str:
    if not ours:
        return ''
    begin = 'For all these methods the weight' if ours == methods else '†: the weight'
    return f'{begin} that counts as published is that of this repository’s fragment; none is published for detectors.'


def _not_yet(figures: SettingFigures) -> bool:
    """Whether tuned runs are planned that are not there."""
    return figures.basis != 'tuned' and figures.tunes


def _small_table(settings: Mapping[str, SettingFigures]) -> list[str]:
    """The settings with few methods, one row for each method."""
    rows, ours = [], False
    for name, figures in settings.items():
        plain = say.percent(figures.plain.mAP if figures.plain else None)
        title = f'{_titles(settings)[name]} (`{name}`)'
        head = [title, say.percent(figures.teachers.get('trained')), plain, figures.basis]
        for row, column in _compared(figures).values():
            mine = row.method.weights_are == 'ours'
            title, ours = row.method.title + (' †' if mine else ''), ours or mine
            rows.append([*head, title, say.gain(column.gain, ENOUGH_SEEDS), say.share(column.share)])
            head = [''] * len(head)
    if not rows:
        return []
    table = markdown_table(['', 'teacher', 'plain student', 'weights', 'method', 'minus plain', 'gap closed'], rows)
    mark = '; †: the weight that counts as published is that of this repository’s fragment' if ours else ''
    return [f'**Other pairs** (95 % intervals{mark}):', table]


def _cell(column: Column | None, figures: SettingFigures) -> str:
    """A gain; with the number of seeds where others have more."""
    text = say.gain_half(column.gain if column else None)
    if column is None or column.gain is None or len(column.gain.seeds) < ENOUGH_SEEDS:
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


def _networks(name: str, figures: SettingFigures) -> str:
    """The networks of teacher and student, as the title calls them; where there is none, the setting's name."""
    return str(figures.pair.get('title') or name)


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
    """Which method to take, one sentence per question, each with the figures of its rows and the weights they are of.

    Each setting has its own answer: tuned figures where all its methods are tuned, else those at published weights. As
    an answer a method needs all planned seeds, three at least, and an interval above zero; where time is weighed, a
    timing, too. A plain student that trains for longer comes first where no method that costs no more is clearly above
    it.

    Args:
        records_by_setting: Setting → its records.

    Returns:
        Markdown: a list of at most twelve sentences, and how to read them.

    Raises:
        DataError: A setting has no records, or those of another.
        RuntimeError: A student did not start, or was not fed, as the plain one.
    """
    every = {name: collect(records) for name, records in records_by_setting.items()}
    settings, small = _split(every)
    if not any(_compared(figures) for figures in settings.values()):
        return 'No method has been compared with a plain student yet.'
    total, named = len(every), {}
    leading = {name: figures for name, figures in settings.items() if _longer_leads(figures)}
    lines = []
    if leading:
        lines.append(
            f'**At this budget first train the plain student longer**, without a teacher: {_longer(leading, total)}'
        )
    same = {name: figures for name, figures in settings.items() if not _heads_differ(name, figures.pair)}
    differing = {name: figures for name, figures in every.items() if _heads_differ(name, figures.pair)}
    many = {name: figures for name, figures in settings.items() if len(_compared(figures)) > 1}
    largest = _Question(level=bool(many))
    lines += _answer('**The largest gain:**' if many else '**The gain:**', settings, largest, total, named)
    most = _answer('', many, _Question(rank=_per_time, timed=True), total, named)
    cheap = _answer('', many, _Question(rank=lambda column: -column.cost, timed=True), total, named)
    if most and most == cheap:
        lines.append(f'**The most for the time, and the cheapest that is shown to help:**{most[0]}')
    else:
        lines += [f'**The most for the time:**{text}' for text in most]
        lines += [f'**The cheapest that is shown to help:**{text}' for text in cheap]
    for words, mine, families in (
        ('**If the heads differ:**', differing, None),
        ('**If you want class scores only:**', settings, ('logits',)),
        ('**If teacher and student have the same kind of head, with boxes:**', same, _BOXES),
    ):
        lines += _answer(words, mine, _Question(families=families), total, named)
    if any(figures.basis == 'tuned' for figures in settings.values()):
        lines += _answer('**If you cannot tune the weight:**', settings, _Question(untuned=True), total, named)
    elsewhere = {name: figures for name, figures in small.items() if name not in differing}
    lines += _answer('**On other pairs:**', elsewhere, _Question(), total, named)
    later = {name: settings[name] for name in _gains(settings, 'plain_longer') if name not in leading}
    if later:
        lines.append(f'**Without a teacher**, more steps alone give {_longer(later, total)}')
    alone = _gains({n: f for n, f in settings.items() if n not in leading and n not in later}, 'plain_as_teacher')
    if alone:
        lines.append(f'**Without a teacher, trained for as long as it**, the student gains {_figures(alone, total)}.')
    own = _gains(settings, 'self_distilled')
    if own:
        lines.append(f'**With the student as its own teacher** it gains {_figures(own, total)}.')
    lines += _not_helping(settings)
    return '\n'.join(f'- {line}' for line in lines) + f'\n\n{_reading(every, named)}'


def _gains(settings: Mapping[str, SettingFigures], role: str) -> dict[str, Column]:
    """The columns of students without a method that can be set beside the plain one."""
    found = {name: figures.students.get(role) for name, figures in settings.items()}
    return {name: column for name, column in found.items() if column is not None and column.gain is not None}


_BOXES = ('boxes', 'mixed')


@dataclass(frozen=True)
class _Question:
    """What is asked of the methods of a setting.

    Attributes:
        families: Of the methods to choose from; None for all.
        rank: The largest value of it answers.
        timed: Methods without a timing are no answer.
        untuned: Published weights, also where all methods are tuned.
        level: Name what the seeds do not tell from the answer.
    """

    families: tuple[str, ...] | None = None
    rank: Callable[[Column], float] = lambda column: column.gain.mean
    timed: bool = False
    untuned: bool = False
    level: bool = False

    def columns(self, figures: SettingFigures) -> list[tuple[MethodRow, Column]]:
        """The rows that are asked, with the column that counts."""
        known = [(row, row.published if self.untuned else figures.pick(row)) for row in figures.rows]
        known = [(row, column) for row, column in known if column is not None and column.gain is not None]
        return [pair for pair in known if self.families is None or pair[0].method.family in self.families]

    def weights(self, figures: SettingFigures, row: MethodRow) -> str:
        if figures.basis == 'tuned' and not self.untuned:
            return 'tuned'
        return 'this repository’s weights' if row.method.weights_are == 'ours' else 'published weights'


def _per_time(column: Column) -> float:
    """Share of the gap for each training time of the plain student on top; no time is less than a hundredth."""
    return column.share / max(column.cost - 1, 0.01)


def _answer(
    words: str, settings: Mapping[str, SettingFigures], asked: _Question, total: int, named: dict[str, Method]
) -> list[str]:
    """A sentence with the best method of each setting that is shown to help, or that there is none; or no sentence.

    Args:
        words: It begins with.
        settings: That are asked.
        asked: The question.
        total: How many settings there are; the setting is named if there are several.
        named: Takes the methods that the sentence names as an answer.
    """
    best: dict[str, tuple[MethodRow, Column]] = {}
    none: dict[str, str] = {}
    for name, figures in settings.items():
        known = asked.columns(figures)
        helping = [(row, c) for row, c in known if figures.ready(c) and c.verdict == 'helps']
        if asked.timed:
            helping = [
                (r, c)
                for r, c in helping
                if c.cost_from == 'timing' and (asked.rank is not _per_time or c.share is not None)
            ]
        if helping:
            best[name] = max(helping, key=lambda pair: asked.rank(pair[1]))
        elif known and not asked.timed:
            none[name] = _none(name, figures, known, asked, total)
    by: dict[str, dict[str, Column]] = {}
    labels: dict[str, str] = {}
    methods = {row.method.name: row.method for row, _ in best.values()}
    for name, (row, column) in best.items():
        by.setdefault(row.method.name, {})[name] = column
        labels[f'{name}/{row.method.name}'] = asked.weights(settings[name], row)
    named.update(methods)
    parts = [
        f'{methods[m].title}: {_figures(mine, total, {name: labels[f"{name}/{m}"] for name in mine})}'
        for m, mine in by.items()
    ]
    if not parts and not none:
        return []
    level = f' {_level(best, settings)}' if asked.level and best else ''
    said = list(none.values())
    if len(none) > _MOST_SETTINGS:
        said = [f'none is shown to help on {say.enumerate_names([f"`{name}`" for name in none])}']
    return [f'{words} {"; ".join(parts + said)}.{level}']


def _none(
    name: str, figures: SettingFigures, known: Sequence[tuple[MethodRow, Column]], asked: _Question, total: int
) -> str:
    """That none of a setting is shown to help, with the row of the largest mean; or that seeds are missing."""
    ready = [pair for pair in known if figures.ready(pair[1])]
    row, column = max(ready or known, key=lambda pair: (len(pair[1].gain.seeds) > 1, pair[1].gain.mean))
    titles = say.few([row.method.title for row, _ in known])
    said = f'none of {titles} is shown to help' if len(known) > 1 else f'{titles} is not shown to help'
    where = f'on `{name}` ' if total > 1 else ''
    if not ready:
        said += f' ({"none has" if len(known) > 1 else "it lacks"} {_seeds_needed(figures, len(known))})'
    text = _figures({name: column}, 1, {name: asked.weights(figures, row)})
    return f'{where}{said}' + (
        f'; the largest mean is that of {row.method.title}, {text}' if len(known) > 1 else f': {text}'
    )


def _seeds_needed(figures: SettingFigures, methods: int) -> str:
    seeds = max(len(figures.wanted), ENOUGH_SEEDS)
    return f'the {seeds} seeds that it takes' if methods > 1 else f'some of the {seeds} seeds that it takes'


def _longer_leads(figures: SettingFigures) -> bool:
    """Whether the longer plain run helps, and no method that costs no more is above it with its interval."""
    column, beside = figures.students.get('plain_longer'), figures.beside_longer()
    if column is None or column.gain is None or not beside:
        return False
    helps = column.verdict == 'helps' and len(column.gain.seeds) >= ENOUGH_SEEDS
    return helps and not any(d.verdict == 'helps' and len(d.seeds) >= ENOUGH_SEEDS for d in beside)


def _longer(settings: Mapping[str, SettingFigures], total: int) -> str:
    """What the longer plain run gains, and methods that cost no more; what a run as long as the teacher's does."""
    columns = {name: figures.students['plain_longer'] for name, figures in settings.items()}
    beside = {name: figures.beside_longer() or [] for name, figures in settings.items()}
    if len(settings) > _MOST_SETTINGS:
        everywhere = [difference for mine in beside.values() for difference in mine]
        text = f'{_figures(columns, total)}; {say.beside(everywhere)}, counted over the settings.'
    else:
        parts = []
        for name, figures in settings.items():
            also = ', which is as long as the teacher’s training' if figures.longer_as_teacher else ''
            weights = _weights(figures)
            parts.append(f'{_figures({name: columns[name]}, total)}{also}; {say.beside(beside[name])} ({weights}).')
        text = ' '.join(f'{part[0].upper()}{part[1:]}' if i else part for i, part in enumerate(parts))
    alone = _gains(settings, 'plain_as_teacher')
    if alone:
        text += f' For as long as the teacher: {_figures(alone, total)}.'
    return f'{text} The teacher’s own training is in no time here.'


def _not_helping(settings: Mapping[str, SettingFigures]) -> list[str]:
    """What to avoid, and what is not shown to help wherever it ran, each with the worst of its figures."""
    columns: dict[str, dict[str, tuple[MethodRow, Column]]] = {}
    for name, figures in settings.items():
        for method, (row, column) in _compared(figures).items():
            columns.setdefault(method, {})[name] = (row, column)
    hurting: dict[str, list[str]] = {}
    doubtful: dict[str, list[str]] = {}
    for mine in columns.values():
        name, (row, column) = min(mine.items(), key=lambda item: item[1][1].gain.mean)
        enough = {n: len(c.gain.seeds) >= ENOUGH_SEEDS for n, (_, c) in mine.items()}
        text = f'{row.method.title} {say.gain_half(column.gain).strip("*")}'
        if any(enough[n] and c.verdict == 'hurts' for n, (_, c) in mine.items()):
            hurting.setdefault(name, []).append(text)
        elif all(enough[n] and c.verdict != 'helps' for n, (_, c) in mine.items()):
            doubtful.setdefault(name, []).append(text)
    several = len(settings) > 1
    lines = []
    for words, found in (
        ('**Avoid**, below plain with the interval' + (' in a setting at least' if several else ''), hurting),
        ('**Not shown to help**' + (' wherever it ran' if several else ''), doubtful),
    ):
        parts = [
            f'{", ".join(texts)} ({_weights(settings[name])}{f", `{name}`" if several else ""})'
            for name, texts in found.items()
        ]
        if parts:
            lines.append(f'{words}: {"; ".join(parts)}.')
    return lines


def _reading(settings: Mapping[str, SettingFigures], named: Mapping[str, Method]) -> str:
    """How to read the sentences, what the named methods need, and what not to believe."""
    titles = _titles(settings)
    columns = [c for f in settings.values() for row in f.rows for c in row.columns]
    columns += [column for f in settings.values() for column in f.students.values()]
    needs: dict[str, list[str]] = {}
    for method in named.values():
        if method.needs:
            needs.setdefault(method.needs, []).append(method.title)
    later = [f'`{name}`' for name, figures in settings.items() if _not_yet(figures)]
    parts = [
        'mAP points over the plain student, with 95 % intervals; "gap" is that to the teacher, "time" that of a plain '
        'training.',
        'Time with a ~ is rough.' if any(c.cost_from == 'runs' for c in columns) else '',
        f'Not all tuned runs are there yet: {say.enumerate_names(later)}.' if later else '',
        f'Shown to help: all planned seeds, {ENOUGH_SEEDS} at least, and above zero with the interval.',
        'The best of many is flattered by being picked on the split that it is reported on, and all methods of a '
        'setting share its plain runs.',
        *_longer_teachers(settings, titles),
        *(
            f'{say.enumerate_names(names)} need{"s" if len(names) == 1 else ""} {what}.'
            for what, names in needs.items()
        ),
        f'The settings: {"; ".join(f"`{name}` {title}" for name, title in titles.items())}.',
    ]
    return ' '.join(part for part in parts if part)


def _figures(columns: Mapping[str, Column], settings: int, weights: Mapping[str, str] | None = None) -> str:
    """A row of each setting: gain, interval, weights, share of the gap, time; its name where there are several.

    Of more than three settings the mean, and the rows of the smallest and the largest gain.
    """
    parts, shown = [], dict(columns)
    if len(columns) > _MOST_SETTINGS:
        order = sorted(columns, key=lambda name: columns[name].gain.mean)
        shown = {name: columns[name] for name in (order[0], order[-1])}
    for name, column in shown.items():
        extra = [weights[name]] if weights else []
        extra += [] if column.share is None else [f'{say.share(column.share)} of the gap']
        extra += [] if column.cost is None else [f'{say.cost(column.cost, column.cost_from)} × time']
        where = f' on `{name}`' if settings > 1 else ''
        parts.append(f'{say.gain(column.gain, ENOUGH_SEEDS)}{where}' + (f' ({", ".join(extra)})' if extra else ''))
    if len(columns) > _MOST_SETTINGS:
        mean = statistics.fmean(column.gain.mean for column in columns.values())
        clear = [column.verdict for column in columns.values()].count('helps')
        about = f'{say.signed(mean)}, the mean of {len(columns)} settings, clear of zero in {clear} of them'
        return f'{about}, from {" to ".join(parts)}'
    return '; '.join(parts)


def _level(best: Mapping[str, tuple[MethodRow, Column]], settings: Mapping[str, SettingFigures]) -> str:
    """What the seeds do not tell from the best of each setting; of more than three, only how many these are."""
    level = {}
    for name, (row, _) in best.items():
        figures = settings[name]
        level[name] = [other.method.title for other in level_with(row, figures.rows, figures.pick)]
    if len(level) > _MOST_SETTINGS:
        return f'Clearly above every other method in {sum(not names for names in level.values())} of {len(level)}.'
    several = len(settings) > 1
    parts = [say.few(titles) + (f' on `{name}`' if several else '') for name, titles in level.items()]
    return f'Not clearly below{"" if several else " it"}: {"; ".join(parts)}.'
