"""Several settings side by side: the README's table, and which method to take."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from kd_det.bench import wording as say
from kd_det.bench.catalogue import Method
from kd_det.bench.figures import ENOUGH_SEEDS, Column, MethodRow, SettingFigures, collect, level_with
from kd_det.bench.statistics import above_after_holm, paired_difference
from kd_det.visualization import markdown_table

__all__ = ['choice_section', 'readme_section']

Records = Mapping[str, Sequence[Mapping]]


#: Of more settings in a sentence, or rows in a table, some are drawn together.
_MOST_SETTINGS, _MOST_ROWS = 3, 16
#: Rows of a small setting; methods that are counted over all settings; ties by name; names in a list without figures.
_MOST_SMALL, _MOST_COUNTED, _MOST_TIES, _MOST_LISTED = 3, 5, 2, 8
#: Rows below zero that are named, and methods that nowhere help.
_MOST_AVOIDED, _MOST_DOUBTFUL = 3, 4
#: Methods by name where it is counted in how many settings each answers, or where these are all that ran.
_MOST_FIRST = 2
#: Of more than this share of the rows it is said that they are of one setting.
_MOSTLY = 2 / 3
#: Another method is cheaper if it saves so much of the plain student's time.
_CHEAPER = 0.05
#: Counts over settings are of methods that ran in as many at least, and in a third of them.
_ENOUGH_SETTINGS = 3


def _compared(figures: SettingFigures) -> dict[str, tuple[MethodRow, Column]]:
    """Method → row and column, of those that are set beside each other in a setting; by gain."""
    known = [(row, figures.pick(row)) for row in figures.rows]
    known = [(row, column) for row, column in known if column is not None and column.gain is not None]
    known.sort(key=lambda pair: (-pair[1].gain.mean, pair[0].method.name))
    return {row.method.name: (row, column) for row, column in known}


def _helps(figures: SettingFigures, column: Column) -> bool:
    """Whether a column is shown to help: all planned seeds, three at least, and above zero with the interval."""
    return figures.ready(column) and column.verdict == 'helps'


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
    table of their own below, with the best three of each, how many are shown to help, of how many that ran, and how
    many were planned, where these are more. Last comes how many gains stay above zero after Holm's correction
    within their setting. Of many methods those that are nowhere clear of zero and ran in few settings are named in
    a sentence.

    Args:
        records_by_setting: Setting → its records.

    Returns:
        Markdown: the tables and what their cells mean.

    Raises:
        DataError: A setting has no records, or those of another.
        RuntimeError: A student did not start, or was not fed, as the plain one.
    """
    every = {name: collect(records) for name, records in records_by_setting.items()}
    settings, small = _split(every)
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
    heads = [f'{title} (`{name}`); {_weights(settings[name])}' for name, title in titles.items()]
    table = markdown_table(['', *heads], rows)
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
    paragraphs = [table, ' '.join(part for part in parts if part), *_small_table(small), _after_holm(every)]
    return '\n\n'.join(paragraph for paragraph in paragraphs if paragraph)


def _as_above(settings: Mapping[str, SettingFigures]) -> bool:
    """Whether some settings have one longer run, of the teacher's length, and others two."""
    two = any('plain_as_teacher' in figures.students for figures in settings.values())
    return two and any(figures.longer_as_teacher for figures in settings.values())


def _after_holm(settings: Mapping[str, SettingFigures]) -> str:
    """How many gains are above zero by themselves, and how many of them as one of several in their setting."""
    tried, helping, staying = {}, {}, {}
    for name, figures in settings.items():
        columns = [c for _, c in _compared(figures).values() if len(c.gain.seeds) >= ENOUGH_SEEDS]
        tried[name] = len(columns)
        helping[name] = sum(column.verdict == 'helps' for column in columns)
        staying[name] = sum(above_after_holm([column.gain for column in columns]))
    if not sum(helping.values()):
        return ''
    where = f'each of the {sum(map(bool, tried.values()))} settings' if len(settings) > 1 else 'the setting'
    none = [f'`{name}` ({count})' for name, count in helping.items() if count and not staying[name]]
    return (
        f'Many comparisons: of {sum(tried.values())}, each of a method in a setting, {sum(helping.values())} are above '
        f'zero with their interval by themselves, {sum(staying.values())} after Holm’s correction within {where}'
        + (f'; none is left on {say.few(none)}' if none else '')
        + '.'
    )


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
    return _most_first(scores)


def _most_first(scores: Mapping[str, Sequence[float]]) -> list[str]:
    """Names: those of the most values first, of as many the larger mean, then by name."""
    return sorted(scores, key=lambda name: (-len(scores[name]), -statistics.fmean(scores[name]), name))


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
    """The settings with few methods: of each the best rows, and how many of all are shown to help."""
    rows, ours = [], False
    for name, figures in settings.items():
        plain = say.percent(figures.plain.mAP if figures.plain else None)
        title = f'{_titles(settings)[name]} (`{name}`)'
        compared = list(_compared(figures).values())
        helping = sum(_helps(figures, column) for _, column in compared)
        head = [title, say.percent(figures.teachers.get('trained')), plain, figures.basis]
        ran, planned = len(compared), figures.planned or 0
        head.append(f'{helping} of {ran}' + (f' ({planned} planned)' if planned > ran else ''))
        for row, column in compared[:_MOST_SMALL]:
            mine = row.method.weights_are == 'ours'
            title, ours = row.method.title + (' †' if mine else ''), ours or mine
            rows.append([*head, title, say.gain(column.gain, ENOUGH_SEEDS), say.share(column.share)])
            head = [''] * len(head)
    if not rows:
        return []
    names = ['', 'teacher', 'plain student', 'weights', 'shown to help', 'method', 'minus plain', 'gap closed']
    mark = '; †: the weight that counts as published is that of this repository’s fragment' if ours else ''
    note = (
        f'Of each pair the {_MOST_SMALL} methods of the largest gain at most; shown to help: of its methods that ran, '
        f'those with all planned seeds, {ENOUGH_SEEDS} at least, and an interval above zero. All rows are in the '
        'reports.'
    )
    return [f'**Other pairs** (95 % intervals{mark}):', markdown_table(names, rows), note]


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
    """Which method to take: one screen, however many settings there are, each sentence with figures of the rows.

    Questions are put to the settings that compare many methods, each with its own answer; counts are over all. In a
    setting figures are tuned where all its methods are, else those at published weights. As an answer a method needs
    all planned seeds, three at least, and an interval above zero; where time is weighed, a timing, too. What is counted
    or averaged is so over all settings in which a method has these seeds, whether it helps or not. A plain student that
    trains for longer comes first if in most settings that tried it no method that takes no longer is clearly above it.

    Args:
        records_by_setting: Setting → its records.

    Returns:
        Markdown: a list of at most ten items, and how to read them.

    Raises:
        DataError: A setting has no records, or those of another.
        RuntimeError: A student did not start, or was not fed, as the plain one.
    """
    every = {name: collect(records) for name, records in records_by_setting.items()}
    settings, _ = _split(every)
    if not any(_compared(figures) for figures in settings.values()):
        return 'No method has been compared with a plain student yet.'
    several = len(every) > 1
    many = {name: figures for name, figures in settings.items() if len(_compared(figures)) > 1}
    differing = {name: figures for name, figures in every.items() if _heads_differ(name, figures.pair)}
    largest = _Question().best(settings)
    quick, cheap = (_Question(rank=rank, timed=True).best(many) for rank in (_per_time, lambda column: -column.cost))
    cheap = _cheaper(cheap, quick)
    answers = [largest, quick, cheap]
    lines = [_over_all(every)]
    level = f' {_level(largest, settings)}' if many and largest else ''
    lines.append(_answer('**The largest gain:**' if many else '**The gain:**', largest, several) + level)
    lines.append(_for_the_time(quick, cheap, several))
    for words, question, mine in (
        ('**Class scores only:**', _Question(families=('logits',)), settings),
        ('**Heads that differ:**', _Question(), differing),
    ):
        best = question.best(mine)
        answers.append(best)
        none = question.none(mine)
        lines.append(_answer(words, best, several, none, style='gain', only=question.few({n: mine[n] for n in none})))
    alone = _without_teacher(every)
    if _longer_leads(every):
        lines.insert(0, f'**First train the plain student longer:** {alone}')
    elif alone:
        lines.append(f'**Without a teacher**, for longer: {alone}')
    equal = {name: figures for name, figures in every.items() if figures.equal_teacher}
    heirs = {name: figures for name, figures in every.items() if figures.pair.get('inherit')}
    more = []
    for words, mine in (
        ('**Students as long as the teacher:**', equal),
        ('**Students that inherit weights:**', heirs),
    ):
        if len(mine) < len(every):  # else it is what all the other answers say
            best = _Question().best(mine)
            answers.append(best)
            more.append(_answer(words, best, several, none=_Question().none(mine), style='gain'))
    lines[1:1] = more
    text = '\n'.join(f'- {line}' for line in [*lines, _nothing(every), _not_helping(every)] if line)
    named = {row.method.name: row.method for best in answers for row, _ in best.values()}
    first = re.sub(r' %, ×(\S+)\)', r' % of the gap to the teacher, \1 × plain training)', text, count=1)
    return f'{first}\n\n{_reading(every, named.values(), text)}'


#: A row of a setting, and that column of it that counts.
_Row = tuple[MethodRow, Column]


@dataclass(frozen=True)
class _Question:
    """What is asked of the methods of a setting.

    Attributes:
        families: Of the methods to choose from; None for all.
        rank: The largest value of it answers; None for a row that cannot.
        timed: Methods without a timing are no answer.
    """

    families: tuple[str, ...] | None = None
    rank: Callable[[Column], float | None] = lambda column: column.gain.mean
    timed: bool = False

    def rows(self, figures: SettingFigures) -> list[MethodRow]:
        """The rows that are asked."""
        return [row for row in figures.rows if self.families is None or row.method.family in self.families]

    def known(self, figures: SettingFigures) -> list[_Row]:
        """The rows that are asked and have all planned seeds, with the column that counts."""
        known = [(row, figures.pick(row)) for row in self.rows(figures)]
        return [(row, column) for row, column in known if figures.ready(column)]

    def best(self, settings: Mapping[str, SettingFigures]) -> dict[str, _Row]:
        """Setting → the row that answers, where one is shown to help."""
        found = {}
        for name, figures in settings.items():
            helping = [(row, column) for row, column in self.known(figures) if _helps(figures, column)]
            if self.timed:
                helping = [pair for pair in helping if pair[1].cost_from == 'timing']
            ranked = [pair for pair in helping if self.rank(pair[1]) is not None]
            if ranked:
                found[name] = max(ranked, key=lambda pair: self.rank(pair[1]))
        return found

    def few(self, settings: Mapping[str, SettingFigures]) -> str:
        """The methods that were asked, by name, where these are few and the same in all settings; else nothing."""
        asked = {frozenset(row.method.title for row in self.rows(f) if f.pick(row)) for f in settings.values()}
        titles = sorted(asked.pop()) if len(asked) == 1 else []
        return say.enumerate_names(titles) if 0 < len(titles) <= _MOST_FIRST else ''

    def none(self, settings: Mapping[str, SettingFigures]) -> dict[str, _Row]:
        """Setting → the row of the largest mean, where methods have all planned seeds and none is shown to help."""
        known = {name: self.known(figures) for name, figures in settings.items()}
        return {
            name: max(rows, key=lambda pair: pair[1].gain.mean)
            for name, rows in known.items()
            if rows and not any(_helps(settings[name], column) for _, column in rows)
        }


def _per_time(column: Column) -> float | None:
    """Share of the gap for each training time of the plain student on top; no time is less than a hundredth."""
    return None if column.share is None else column.share / max(column.cost - 1, 0.01)


def _answer(
    words: str,
    best: Mapping[str, _Row],
    several: bool,
    none: Mapping[str, _Row] | None = None,
    style: str = 'full',
    only: str = '',
) -> str:
    """A sentence with the answer of each setting; empty without any.

    Args:
        words: It begins with.
        best: Setting → the row that answers. Of many settings the methods are counted.
        several: Whether settings are named.
        none: Setting → the row of the largest mean where no method answers; shown if there is no answer at all.
        style: Of the figures.
        only: The methods that were asked where none answers, if these are few.
    """
    by: dict[str, dict[str, Column]] = {}
    for name, (row, column) in best.items():
        mark = ' †' if column is row.published and row.method.weights_are == 'ours' else ''
        by.setdefault(row.method.title + mark, {})[name] = column
    if len(best) > _MOST_SETTINGS:
        parts = [_counted(by, 'gain' if style == 'full' else style)]
    else:
        parts = [f'{title} {_figures(mine, several, style)}' for title, mine in by.items()]
    if none and not best and len(none) <= _MOST_SETTINGS:
        rows = [
            f'{row.method.title} {_figures({name: column}, several, "gain")}' for name, (row, column) in none.items()
        ]
        parts.append(f'none helps (best: {", ".join(rows)})')
    elif none and len(best) > _MOST_SETTINGS:
        parts.append(f'none in {len(none)}')
    elif none:
        parts.append(f'none helps {_places(none)}{only and f" ({only} only)"}')
    return f'{words} {"; ".join(parts)}.' if parts else ''


def _places(names: Collection[str]) -> str:
    """Settings by name; of many only how many."""
    if len(names) > _MOST_SETTINGS:
        return f'in {len(names)} settings'
    return f'on {say.enumerate_names([f"`{name}`" for name in names])}'


def _figures(columns: Mapping[str, Column], several: bool, style: str = 'full') -> str:
    """A row of each setting: the gain ± half its interval (share of the gap, time over plain training).

    Args:
        columns: Setting → what is written.
        several: Whether settings are named.
        style: ``'gain'``: nothing in brackets; ``'time'``: share and time only.
    """
    parts = []
    for name, column in columns.items():
        text = say.gain_half(column.gain).strip('*')
        share = [] if column.share is None else [say.share(column.share)]
        time = [] if column.cost is None else [f'×{say.cost(column.cost, column.cost_from)}']
        where = f' on `{name}`' if several else ''
        if style == 'time' and share:
            parts.append(f'{" for ".join(share + time)}{where}')
        else:
            more = f' ({", ".join(share + time)})' if share + time and style != 'gain' else ''
            parts.append(f'{text}{where}{more}')
    return ', '.join(parts)


def _counted(by: Mapping[str, Mapping[str, Column]], style: str) -> str:
    """In how many of many settings each method answers; of the first one the rows of the least and the largest gain.

    Of methods that answer in as many settings the one with the larger mean share of the gap (or gain) is first.
    """
    whole = all(column.share is not None for mine in by.values() for column in mine.values())
    scores = {
        title: [column.share if whole else column.gain.mean for column in mine.values()] for title, mine in by.items()
    }
    order = _most_first(scores)
    mine = by[order[0]]
    ends = sorted(mine, key=lambda name: mine[name].gain.mean)
    rows = [_figures({name: mine[name]}, True, style) for name in dict.fromkeys([ends[0], ends[-1]])]
    parts = [f'{order[0]} in {len(mine)} settings ({" to ".join(rows)})']
    parts += [f'{title} in {len(by[title])}' for title in order[1:_MOST_FIRST]]
    rest = sum(len(by[title]) for title in order[_MOST_FIRST:])
    return ', '.join(parts + ([f'others in {rest}'] if rest else []))


def _level(best: Mapping[str, _Row], settings: Mapping[str, SettingFigures]) -> str:
    """What the seeds do not tell from the best of each setting: a few names, else only how many these are."""
    level = {}
    for name, (row, _) in best.items():
        figures = settings[name]
        level[name] = [other.method.title for other in level_with(row, figures.rows, figures.pick)]
    if len(level) > _MOST_SETTINGS:
        return f'Clearly above every other method in {sum(not names for names in level.values())} of {len(level)}.'
    parts = [
        (str(len(titles)) if len(titles) > _MOST_TIES else say.enumerate_names(titles))
        + (f' on `{name}`' if len(settings) > 1 else '')
        for name, titles in level.items()
        if titles
    ]
    return f'Ties: {", ".join(parts) if parts else "none"}.'


def _cheaper(cheap: Mapping[str, _Row], quick: Mapping[str, _Row]) -> dict[str, _Row]:
    """The cheapest rows, where they save enough beside those of the most for the time, or these are lacking."""
    return {
        name: row for name, row in cheap.items() if name not in quick or quick[name][1].cost - row[1].cost >= _CHEAPER
    }


def _for_the_time(quick: Mapping[str, _Row], cheaper: Mapping[str, _Row], several: bool) -> str:
    """Most of the gap for the time, and cheaper methods that are shown to help."""
    first = _answer('**The most for the time:**', quick, several, style='time')
    return f'{first} {_answer("Cheapest:", cheaper, several, style="time")}'.strip()


def _over_all(settings: Mapping[str, SettingFigures]) -> str:
    """How often methods that ran in many settings help, and their mean share of the gap, over all where they ran."""
    ran: dict[str, list[bool]] = {}
    shares: dict[str, list[float]] = {}
    for figures in settings.values():
        for row, column in _Question().known(figures):
            title = row.method.title
            ran.setdefault(title, []).append(_helps(figures, column))
            shares.setdefault(title, []).extend([] if column.share is None else [column.share])
    least = max(_ENOUGH_SETTINGS, math.ceil(len(settings) / 3))
    mean = {title: statistics.fmean(mine) for title, mine in shares.items() if len(ran[title]) >= least and mine}
    order = sorted(mean, key=lambda title: (-sum(ran[title]), -mean[title], title))
    parts = [f'{title} {sum(ran[title])} of {len(ran[title])} ({say.share(mean[title])})' for title in order]
    if not parts:
        return ''
    first, count = order[0], len(ran[order[0]])
    whole = all(len(shares[title]) == len(ran[title]) for title in order)
    parts[0] = (
        f'{first} helps in {sum(ran[first])} of {count} it ran in ({say.share(mean[first])} of the gap, mean '
        f'of {count if whole else "those with a better teacher"})'
    )
    rest = [f'{len(parts) - _MOST_COUNTED} more in no more'] if len(parts) > _MOST_COUNTED else []
    return f'**Over all {len(settings)} settings:** {"; ".join(parts[:_MOST_COUNTED] + rest)}.'


def _gains(
    settings: Mapping[str, SettingFigures], pick: Callable[[SettingFigures], Column | None]
) -> dict[str, Column]:
    """The columns of students without a method that can be set beside the plain one."""
    found = {name: pick(figures) for name, figures in settings.items()}
    return {name: column for name, column in found.items() if column is not None and column.gain is not None}


def _longer(figures: SettingFigures) -> Column | None:
    return figures.students.get('plain_longer')


def _longer_leads(settings: Mapping[str, SettingFigures]) -> bool:
    """Whether in most settings with a longer plain run it helps, and no method as fast is clearly above."""

    def leads(figures: SettingFigures, column: Column) -> bool:
        beside = figures.beside_longer()
        helps = column.verdict == 'helps' and len(column.gain.seeds) >= ENOUGH_SEEDS
        return helps and bool(beside) and not any(d.verdict == 'helps' and len(d.seeds) >= ENOUGH_SEEDS for d in beside)

    columns = _gains(settings, _longer)
    return 2 * sum(leads(settings[name], column) for name, column in columns.items()) > len(columns)


def _without_teacher(settings: Mapping[str, SettingFigures]) -> str:
    """What longer plain runs gain, and methods as fast; and plain runs as long as the teacher's training."""
    columns, parts = _gains(settings, _longer), []
    if columns:
        text = _figures(columns, len(settings) > 1)
        if len(columns) > _MOST_SETTINGS:
            helping = sum(_helps(settings[name], column) for name, column in columns.items())
            shares = [column.share for column in columns.values() if column.share is not None]
            text = f'it helps in {helping} of {len(columns)} settings' + (
                f', closing {say.share(statistics.fmean(shares))} of the gap on average' if shares else ''
            )
        beside = {name: settings[name].beside_longer() or [] for name in columns}
        every = [difference for differences in beside.values() for difference in differences]
        most = max(beside, key=lambda name: len(beside[name]))
        where = f'{len(beside[most])} of `{most}`' if _MOSTLY < len(beside[most]) / max(len(every), 1) < 1 else ''
        parts.append(f'{text}; {say.beside(every, "rows" if len(columns) > 1 else "methods", where)}.')
    long = _gains(settings, lambda figures: figures.as_teacher)
    above = {name: _above_all(settings[name], column) for name, column in long.items()}
    known = [name for name, found in above.items() if found is not None and long[name].cost is not None]
    if known:
        costs = sorted({say.ratio(long[name].cost) for name in known}, key=float)
        single = sum(len(long[name].values) == 1 for name in known)
        seeds = f' ({single} with one seed)' if single else ''
        parts.append(
            f'As long as the teacher (×{" to ×".join(dict.fromkeys([costs[0], costs[-1]]))}) its mean is '
            f'highest in {sum(above[name] for name in known)} of {len(known)} settings{seeds}.'
        )
    return ' '.join(parts)


def _above_all(figures: SettingFigures, column: Column) -> bool | None:
    """Whether a column's mean is above that of every method, over the seeds of both; None without a method."""
    others = [other.values for _, other in _compared(figures).values()]
    differences = [paired_difference(column.values, values) for values in others]
    means = [difference.mean for difference in differences if difference is not None]
    return all(mean > 0 for mean in means) if means else None


def _nothing(settings: Mapping[str, SettingFigures]) -> str:
    """Where no method is shown to help, and where seeds are missing for any answer."""
    none = _Question().none(settings)
    begun = [f'`{n}`' for n, f in settings.items() if _compared(f) and not _Question().known(f)]
    parts = []
    if len(settings) == 1 and none:
        ((row, column),) = none.values()
        parts.append(f'**Nothing helps** (best: {row.method.title} {_figures({"": column}, False, "gain")}).')
    elif none:
        names = say.few([f'`{name}`' for name in none], _MOST_LISTED)
        parts.append(f'**Nothing helps** in {len(none)} of {len(settings)} settings: {names}.')
    if begun:
        parts.append(f'No method has all planned seeds yet, {ENOUGH_SEEDS} at least: {say.few(begun)}.')
    return ' '.join(parts)


def _not_helping(settings: Mapping[str, SettingFigures]) -> str:
    """What to avoid, with the worst of the rows below zero, and what is not shown to help wherever it ran.

    Those to avoid that help nowhere come first; those not shown to help, by the number of settings.
    """
    columns: dict[str, dict[str, Column]] = {}
    for name, figures in settings.items():
        for row, column in _compared(figures).values():
            columns.setdefault(row.method.title, {})[name] = column
    avoid: list[tuple[bool, float, str]] = []
    doubtful: dict[str, int] = {}
    for title, mine in columns.items():
        enough = {name: column for name, column in mine.items() if len(column.gain.seeds) >= ENOUGH_SEEDS}
        hurting = {name: column for name, column in enough.items() if column.verdict == 'hurts'}
        if hurting:
            worst = min(hurting, key=lambda name: hurting[name].gain.mean)
            text = f'{title} {_figures({worst: hurting[worst]}, len(settings) > 1, "gain")}'
            text += f' and in {len(hurting) - 1} more' if len(hurting) > 1 else ''
            helping = sum(_helps(settings[name], column) for name, column in mine.items())
            text += f' (helps in {helping})' if helping else ''
            avoid.append((bool(helping), hurting[worst].gain.mean, text))
        elif len(enough) == len(mine) and not any(column.verdict == 'helps' for column in mine.values()):
            doubtful[title] = len(mine)
    names = sorted(doubtful, key=lambda title: -doubtful[title])
    counts = [f' ({doubtful[title]}{"" if i else " settings"})' for i, title in enumerate(names)]
    known = [title + (count if doubtful[title] > 1 else '') for title, count in zip(names, counts)]
    parts = [f'**Avoid**, below zero: {say.few([text for *_, text in sorted(avoid)], _MOST_AVOIDED)}.'] if avoid else []
    if known:
        parts.append(f'**Nowhere shown to help:** {say.few(known, _MOST_DOUBTFUL)}.')
    return ' '.join(parts)


def _reading(settings: Mapping[str, SettingFigures], named: Collection[Method], text: str) -> str:
    """How to read the sentences, what not to believe, and what the named methods need: of ``text`` what it has."""
    tuned = sum(figures.basis == 'tuned' for figures in settings.values())
    longer = sum(figures.longer_teacher for figures in settings.values())
    needs: dict[str, list[str]] = {}
    for method in named:
        if method.needs:
            needs.setdefault('matching heads' if method.matching_heads else method.needs, []).append(method.title)
    parts = [
        'mAP points over plain ± half the 95 % interval; time'
        + (' (~: rough)' if '~' in text else '')
        + ' excludes the teacher’s.',
        f'Helps: interval above zero, all planned seeds, {ENOUGH_SEEDS} at least. Weights: tuned in '
        f'{tuned} of {len(settings)} settings{", else published" if tuned < len(settings) else ""}'
        + (' (†: by this repository).' if '†' in text else '.'),
        'Answers are picked on the reported split, so flattered'
        + (
            f'; {"all" if longer == len(settings) else f"{longer} of {len(settings)}"} teachers trained longer.'
            if longer
            else '.'
        ),
        '; '.join(
            f'{say.enumerate_names(names)} need{"s" if len(names) == 1 else ""} {what}' for what, names in needs.items()
        ),
    ]
    return ' '.join(parts) + ('.' if needs else '')
