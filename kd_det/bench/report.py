"""The report of a setting: Markdown, CSV and two pictures, all of it from the records.

mAP is in per cent and differences are in points throughout.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kd_det.bench import wording as say
from kd_det.bench.catalogue import method_or_new
from kd_det.bench.figures import ENOUGH_SEEDS, Column, MethodRow, SettingFigures, collect, level_with
from kd_det.bench.overview import choice_section, readme_section
from kd_det.bench.plots import plot_gains, plot_pareto
from kd_det.bench.statistics import Difference, above_after_holm
from kd_det.checkpoint import atomic_path
from kd_det.visualization import markdown_table

__all__ = ['SettingReport', 'choice_section', 'readme_section', 'report_setting', 'write_report']

#: kd_det's own targets for real data: the best method closes this share of the gap, this share of the methods helps.
GAP_BAR, HELP_BAR = 1 / 2, 2 / 3

#: Role → name in tables.
STUDENTS = {
    'plain': 'plain student',
    'plain_longer': 'plain student, longer',
    'plain_as_teacher': 'plain student, as long as the teacher',
    'self_distilled': 'self-distilled student',
}
_COLUMNS = ('published', 'tuned')
_WORDS = dict(published='with published weights', tuned='tuned')
_METRICS = ('AP50', 'AP75', 'small', 'medium', 'large')


@dataclass(frozen=True)
class SettingReport:
    """What can be said about a setting.

    Attributes:
        figures: All figures, mAP in 0 … 1.
        reasons: Method's name → why it does not help, found by somebody who looked: text, factor and seeds.
        note: What a reader has to know of the setting.
    """

    figures: SettingFigures
    reasons: Mapping[str, Mapping]
    note: str = ''

    # --- figures ------------------------------------------------------------------------------------------------------

    @cached_property
    def summary(self) -> dict:
        """The counts behind the sentences.

        ``published`` and ``tuned`` each hold the names of the methods by verdict (``helps``, ``hurts``, ``unclear``),
        ``one_seed``, those without an interval and so without a verdict, ``of``, how many methods are planned or,
        without a plan, have a verdict, ``share_helping`` of these (None without a verdict), whether it reaches two
        thirds (``enough_help``; None where methods without all their seeds can still decide, on synthetic images, and
        for a single method), ``after_holm``, those that help after Holm's correction for all that have a verdict,
        ``best_share`` (``method``, ``share``, ``gain``; None without a gap) and whether it reaches one half
        (``enough_gap``; None as above, and without an interval). ``ranked`` are the methods with an interval and all
        planned seeds, by gain, and ``level`` those that are not clearly below the first of them.
        ``not_shown_to_help`` are the methods whose tuned column, else the published one, has an interval that is not
        above zero: ``hurts``, below zero, ``unclear``, and ``few_seeds``, unclear with less than three seeds.
        ``best`` is the first, tuned where all are tuned, of those with intervals, if there are any, and
        ``level_with_best`` those that are not clearly below it.
        """
        found: dict = dict(setting=self.figures.name, methods=[row.method.name for row in self.figures.rows])
        found['teacher'] = self.figures.teachers.get('trained')
        found['plain'] = self.figures.plain.mAP.mean if self.figures.plain else None
        for name in _COLUMNS:
            found[name] = _count([(row, getattr(row, name)) for row in self.figures.rows], self.figures)
        shown = [row for row in self.figures.rows if row.shown is not None and row.shown.gain is not None]
        judged = [row for row in shown if row.shown.gain.half is not None]
        found['not_shown_to_help'] = {key: [] for key in ('hurts', 'unclear', 'few_seeds')}
        for row in judged:
            verdict, few = row.shown.verdict, len(row.shown.gain.seeds) < ENOUGH_SEEDS
            if verdict != 'helps':
                key = 'few_seeds' if verdict == 'unclear' and few else verdict
                found['not_shown_to_help'][key].append(row.method.name)
        pick = self.figures.pick
        compared = [row for row in self.figures.rows if pick(row) is not None and pick(row).gain is not None]
        judged = [row for row in compared if pick(row).gain.half is not None]
        best = max(judged or compared, key=lambda row: pick(row).gain.mean, default=None)
        found['best'] = best.method.name if best else None
        found['level_with_best'] = [row.method.name for row in level_with(best, compared, pick)] if best else []
        found['missing'] = list(self.figures.missing)
        return found

    def csv_rows(self) -> list[dict]:
        """One row per teacher, kind of student, and method and column. mAP in per cent, unknown figures are empty."""
        rows = [
            _csv(self.figures, name=f'teacher/{teacher}', title=f'teacher, {teacher}', mAP=100 * value)
            for teacher, value in self.figures.teachers.items()
        ]
        for role, column in self.figures.students.items():
            rows.append(_csv(self.figures, column, name=role, title=_student(role, self.figures)))
        for row in self.figures.rows:
            about = dict(name=row.method.name, title=row.method.title, family=row.method.family)
            about |= dict(weights_are=row.method.weights_are, source=row.method.source)
            for name in _COLUMNS:
                if getattr(row, name) is not None:
                    holdout = row.holdout.get(getattr(row, name).factor)
                    extra = {} if holdout is None else dict(holdout_mAP=100 * holdout)
                    rows.append(_csv(self.figures, getattr(row, name), column=name, **about, **extra))
        for control in self.figures.controls:
            about = dict(title=control.method.title, family=control.method.family, factor=control.factor)
            for teacher in ('random', 'shuffled'):
                difference = getattr(control, teacher)
                if difference is not None:
                    gains = _csv_gain(difference) | dict(seeds=' '.join(map(str, difference.seeds)))
                    rows.append(_csv(self.figures, name=f'{control.method.name}/{teacher}_teacher', **about, **gains))
        return rows

    # --- text ---------------------------------------------------------------------------------------------------------

    def markdown(self, pictures: bool = False) -> str:
        """The section: table, what it says, teachers compared, tuning, notes.

        Args:
            pictures: Show ``gains.png`` and ``pareto.png``, which :func:`write_report` puts beside the report.
        """
        title = ', '.join(str(self.figures.pair[key]) for key in ('title', 'data') if self.figures.pair.get(key))
        name = f'`{self.figures.name}`'
        parts = [f'## {title} ({name})' if title else f'## {name}', self._gap_and_length(), self.note]
        parts += [self._table(), self._below_table()]
        if pictures:
            parts.append('![Gains with intervals](gains.png)\n\n![mAP over training time](pareto.png)')
        parts += ['### What it says', _bullets(self.sentences())]
        for heading, text in (
            ('### Not shown to help', self._not_helping()),
            ('### Whether it is the teacher', self._controls()),
            ('### How the factors were chosen', self._tuning()),
            ('### What was measured', _bullets(self.notes())),
            ('### What is missing', _bullets(self.figures.missing)),
            *((f'### Left out: {reason}', _bullets(_runs(c))) for reason, c in self.figures.left_out.items()),
        ):
            if text:
                parts += [heading, text]
        return '\n\n'.join(part for part in parts if part) + '\n'

    def _gap_and_length(self) -> str:
        """That a gap is one of training length, too, where it is, and what that alone closes."""
        if not self.figures.longer_teacher:
            return ''
        teacher, student = self.figures.lengths
        text = (
            f'The teacher saw {teacher / student:.3g} times as many images in training as the students: '
            'the gap is also one of training length.'
        )
        alone = self.figures.as_teacher
        if alone is None or alone.gain is None:
            return text + ' How much of it is was not measured.'
        closed = '' if alone.share is None else f', {say.share(alone.share)} of the gap'
        return f'{text} The plain student trained for as long gains {say.gain(alone.gain)}{closed} without a teacher.'

    def _table(self) -> str:
        header = ['', 'mAP, published weights', 'minus plain', 'gap closed', 'factor', 'mAP, tuned', 'minus plain']
        header += ['gap closed', 'time ×', 'memory, MiB', 'memory ×', 'seeds', 'diverged']
        rows = []
        if 'trained' in self.figures.teachers:
            rows.append(['teacher', say.percent(self.figures.teachers['trained'])] + [say.NOTHING] * (len(header) - 2))
        for role, column in self.figures.students.items():
            cells = [say.percent(column.mAP), *[say.NOTHING] * 2] if role == 'plain' else _map_cells(column)
            rows.append([_student(role, self.figures), *cells, *[say.NOTHING] * 4, *_cost_cells([column])])
        ours, every = _ours(self.figures)
        for row in self.figures.rows:
            mark = ' †' if row.method.name in ours and not every else ''
            cells = [row.method.title + mark, *_map_cells(row.published)]
            cells += [say.NOTHING if row.factor is None else f'{row.factor:g}', *_map_cells(row.tuned)]
            rows.append([*cells, *_cost_cells(row.columns, row.shown)])
        return markdown_table(header, rows)

    def _below_table(self) -> str:
        voc = self.figures.plain is not None and 'AP75' not in self.figures.plain.metrics
        lines = [
            f'{"mAP" if voc else "COCO mAP"} in per cent, mean ± standard deviation over seeds; "minus plain" is the '
            'mean difference within seeds, with its 95 % interval (Student’s t); "gap closed" the share of the '
            'distance from plain student to teacher, from the means. A factor multiplies the weights of what a method '
            'adds to the student’s own losses.'
        ]
        ours, every = _ours(self.figures)
        if ours:
            lines.append(
                f'{"No weight of any of these methods" if every else "† No weight of this method"} is published for '
                'detectors: what stands under "published" is the weight of this repository’s fragment.'
            )
        lacking = [(r.method.title, c) for r in self.figures.rows for c in r.columns if c.gain is not None]
        lacking += [(_student(role, self.figures), c) for role, c in self.figures.students.items() if c.gain]
        lacking = dict.fromkeys(title for title, column in lacking if not self.figures.complete(column))
        if lacking:
            lines.append(
                '"minus plain" and "gap closed" are over the seeds that a row has, against the plain student of these '
                f'seeds only. Not all seeds: {say.enumerate_names(list(lacking))}.'
            )
        if any(column.diverged for row in self.figures.rows for column in row.columns):
            lines.append('A diverged run counts as mAP 0, in means and differences.')
        if self.figures.plain is not None and self.figures.plain.diverged:
            lines.append('**The plain student diverged with a seed; its 0 is in all differences of that seed.**')
        if self.figures.gap is not None and self.figures.gap <= 0:
            lines.append('The teacher is not better than the plain student: there is no gap to close.')
        return '\n\n'.join(lines)

    def sentences(self) -> list[str]:
        """What the table says: how many methods help, the best share of the gap, what cannot be told apart."""
        lines = []
        titles = {row.method.name: row.method.title for row in self.figures.rows}
        bars = False
        for name, words in _WORDS.items():
            part = self.summary[name]
            count = sum(len(part[key]) for key in _VERDICTS)
            if count:
                planned = 'planned ' if self.figures.plan is not None else ''
                open_ = f'; without an interval so far: {part["of"] - count}' if part['of'] > count else ''
                bar = ''
                if count > 1 and not self.figures.synthetic:
                    bar, bars = f'; bar two thirds: {_met(part["enough_help"], "open")}', True
                lines.append(
                    f'Above plain with the interval clear of zero, {words}: {len(part["helps"])} of {part["of"]} '
                    f'{planned}method{"s" if part["of"] != 1 else ""} ({say.share(part["share_helping"])}{bar}){open_}'
                    f'; below: {say.enumerate_names([titles[n] for n in part["hurts"]])}.'
                )
            if part['one_seed']:
                lines.append(
                    f'One seed so far, hence no interval and no verdict, {words}: '
                    f'{say.few([titles[n] for n in part["one_seed"]])}.'
                )
        if any(row.tuned is not None for row in self.figures.rows):
            among = ', 1 among them' if all(1 in row.holdout for row in self.figures.rows if row.holdout) else ''
            lines.append(
                f'"Tuned" is each method at the factor with the best mAP on the holdout{among}; '
                'the validation split had no part in the choice.'
            )
        for name, words in _WORDS.items():
            part = self.summary[name]
            best, count = part['best_share'], sum(len(part[key]) for key in _VERDICTS)
            if best:
                bar = ''
                if part['enough_gap'] is not None:
                    bar, bars = f'; bar one half: {_met(part["enough_gap"])}', True
                lines.append(
                    f'{"Best share" if count > 1 else "Share"} of the gap, {words}: {titles[best["method"]]}, '
                    f'{say.share(best["share"])} ({say.gain(best["gain"])}{bar}).'
                )
        if bars:
            lines.append(f'The bars are {_TARGETS}.')
        elif self.figures.synthetic and any(self.summary[name]['ranked'] for name in _COLUMNS):
            lines.append(f'The images are drawn, so that the shares are not held against {_TARGETS}.')
        longer = self.figures.students.get('plain_longer')
        if longer is not None and longer.gain is not None:
            lines.append(
                'By time rather than steps: the plain student trained longer '
                f'({say.cost(longer.cost, longer.cost_from)} times the time) gains '
                f'{say.gain(longer.gain)}; {say.beside(self.figures.beside_longer() or [])}.'
            )
        for name, words in (('published', 'methods at published weights'), ('tuned', 'tuned methods')):
            ranked, level = self.summary[name]['ranked'], [titles[n] for n in self.summary[name]['level']]
            if len(ranked) > 1 and name in (self.figures.basis, 'tuned'):
                rest = f'; the seeds do not tell it from {say.few(level)}' if level else ', clearly above every other'
                lines.append(f'Of the {len(ranked)} {words} that have all seeds {titles[ranked[0]]} is first{rest}.')
        counts = {name: sum(len(self.summary[name][key]) for key in _VERDICTS) for name in _COLUMNS}
        if max(counts.values()) > 1:
            stay = [
                f'{words} {len(self.summary[name]["after_holm"])} of {counts[name]} methods with an interval'
                for name, words in _WORDS.items()
                if counts[name]
            ]
            lines.append(
                f'Chance: all methods are compared with the same plain runs, so that low ones flatter all of them; of '
                f'{max(counts.values())} methods without any effect, {0.025 * max(counts.values()):.1f} would be above '
                'zero on average. Above zero after Holm’s correction for as many comparisons: '
                f'{"; ".join(stay)}. The best of many is flattered by being picked on the split that it is reported on.'
            )
        return lines

    def _not_helping(self) -> str:
        rows = {row.method.name: row for row in self.figures.rows}
        parts = []
        for key, words in (
            ('hurts', 'Below plain with the interval:'),
            ('unclear', 'Unclear, the interval holds zero:'),
            ('few_seeds', f'Too few seeds to say (less than {ENOUGH_SEEDS}):'),
        ):
            lines = []
            for name in self.summary['not_shown_to_help'][key]:
                row = rows[name]
                which = self.figures.weights(row, row.shown)
                why = '; '.join([*self._reason(name, row.shown), *self._where(row.shown), *row.facts()])
                lines.append(
                    f'**{row.method.title}**: {say.gain(row.shown.gain)} ({which})'
                    + (f'. {why[0].upper()}{why[1:]}.' if why else '.')
                )
            if lines:
                parts += [words, _bullets(lines)]
        lead = self._differences(self.figures.teacher_metrics)
        if parts and lead:
            parts.insert(0, f'The teacher over the plain student: {lead}.')
        if parts and self.reasons:
            parts.append(
                'Reasons are read from the records; no further runs tried them, '
                'but for those of settings that they name.'
            )
        return '\n\n'.join(parts)

    def _reason(self, name: str, column: Column) -> list[str]:
        """Why a method does not help, and of which runs that was found if the column has others."""
        reason = self.reasons.get(name)
        if not reason:
            return []
        factor, seeds = reason['factor'], reason['seeds']
        same = (factor, seeds) == (column.factor, len(column.values))
        found = '' if same else f'(of factor {factor:g} with {seeds} seeds:) '
        return [found + reason['text'].rstrip('.')]

    def _where(self, column: Column) -> list[str]:
        """At which overlaps a column differs from plain, if it has the same seeds."""
        plain = self.figures.plain
        same = plain is not None and set(plain.values) == set(column.values)
        return [found] if same and (found := self._differences(column.metrics)) else []

    def _differences(self, metrics: Mapping[str, float]) -> str:
        plain = self.figures.plain
        names = ('AP50', 'AP75')
        if plain is None or not all(name in metrics and name in plain.metrics for name in names):
            return ''
        return ', '.join(f'{name} {say.signed(metrics[name] - plain.metrics[name])}' for name in names)

    def _controls(self) -> str:
        controls = self.figures.controls
        if not controls:
            return ''
        header = ['method', 'factor', 'trained teacher', 'random weights', 'shuffled labels']
        header += ['trained minus random', 'trained minus shuffled']
        rows = [
            [c.method.title, f'{c.factor:g}']
            + [say.gain(getattr(c, key)) for key in ('trained', 'random', 'shuffled')]
            + [say.gain(c.trained_over_random), say.gain(c.trained_over_shuffled)]
            for c in controls
        ]
        lines = ['Differences to the plain student, and between teachers, within seeds.', markdown_table(header, rows)]
        known = ', '.join(f'{name} {say.percent(value)}' for name, value in self.figures.teachers.items())
        found = [f'mAP of the teachers: {known}.'] if known else []
        random = [c for c in controls if c.random is not None]
        if random:
            over = [c for c in random if c.trained_over_random is not None]
            clear = [c for c in over if c.trained_over_random.verdict == 'helps']
            found.append(
                f'With a teacher of random weights, methods: {_verdicts([c.random for c in random])}; '
                f'the trained one is above it, clear of zero, for {len(clear)} of {len(over)} '
                f'method{"s" if len(over) != 1 else ""}.'
            )
        for words, mine in (
            ('methods on class scores', [c for c in controls if c.method.on_scores]),
            ('other methods', [c for c in controls if not c.method.on_scores]),
        ):
            mine = [c for c in mine if c.shuffled is not None]
            if mine:
                found.append(f'With a teacher of shuffled labels, {words}: {_verdicts([c.shuffled for c in mine])}.')
        return '\n\n'.join([*lines, _bullets(found)])

    def _tuning(self) -> str:
        rows = [row for row in self.figures.rows if row.holdout]
        if not rows:
            return ''
        factors = sorted({factor for row in rows for factor in row.holdout})
        cells = []
        for row in sorted(rows, key=lambda row: row.method.name):
            figures = [say.percent(row.holdout.get(factor)) for factor in factors]
            figures = [f'**{text}**' if factor == row.factor else text for factor, text in zip(factors, figures)]
            cells.append([row.method.title, *figures])
        table = markdown_table(['mAP on the holdout', *(f'factor {factor:g}' for factor in factors)], cells)
        runs = [r for r in self.figures.records if r['kind'] == 'tune' and r['method'] is not None]
        budget = (
            f'{_range(r["steps"] for r in runs if not r["diverged"])} steps each, '
            f'seed {_range(r["seed"] for r in runs)}; one run per factor, so that differences here are noisy.'
        )
        plain = self.figures.holdout_plain
        plain = '' if plain is None else f' The plain student has {say.percent(plain)}.'
        edges = [r for r in rows if len(r.holdout) > 1 and r.factor in (min(r.holdout), max(r.holdout))]
        if edges:
            names = say.enumerate_names([f'{r.method.title} ({r.factor:g})' for r in edges])
            plain += f' At an end of what was tried, so that a better factor may lie beyond: {names}.'
        about = f'Bold: chosen.{plain} Trained without the holdout, which is split off the training images: {budget}'
        return f'{table}\n\n{about}'

    def notes(self) -> list[str]:
        """What was measured, on what, with what, and how to repeat it."""
        pair, records = self.figures.pair, self.figures.records
        students = [r for r in records if r['kind'] == 'student' and r['role'] not in _LONGER and not r['diverged']]
        longer = [r for r in records if r['role'] == 'plain_longer' and not r['diverged']]
        as_teacher = [r for r in records if r['role'] == 'plain_as_teacher' and not r['diverged']]
        teacher = next((r for r in records if r['kind'] == 'teacher' and r['teacher'] == 'trained'), None)
        lines = [f'Teacher `{pair.get("teacher", "?")}`, student `{pair.get("student", "?")}`.']
        if students:
            lines.append(
                f'Students: {_range(r["steps"] for r in students)} steps of '
                f'{_range(r["batch_size"] for r in students)} images '
                f'({_range(r["epochs"] for r in students)} epochs) on {pair.get("train_images", "?")} training images; '
                f'seeds {", ".join(map(str, self.figures.seeds))}. All students of a seed start from the same '
                'weights and see the same images in the same order and the same flips, which was checked.'
            )
        if students and pair.get('inherit'):
            parts = say.enumerate_names([f'`{part}`' for part in pair['inherit']])
            lines.append(f'All students, the plain ones too, start with the teacher’s {parts}, where shapes agree.')
        if teacher is not None and teacher.get('steps'):
            lines.append(f'Teacher: {teacher["steps"]} steps of {teacher["batch_size"]} images.')
        elif teacher is not None:
            lines.append('Teacher: given weights; its training is unknown here.')
        if longer:
            lines.append(f'Longer plain runs: {_range(r["steps"] for r in longer)} steps.')
        if as_teacher:
            lines.append(f'Plain runs as long as the teacher’s: {_range(r["steps"] for r in as_teacher)} steps.')
        if teacher is not None:
            lines.append(
                f'One teacher (seed {teacher["seed"]}) for all seeds, so that intervals know nothing of its luck.'
            )
        lines.append(
            f'All mAP is of the last checkpoint on the {pair.get("val_images", "?")} images of the validation split, '
            'but where the holdout is named.'
        )
        columns = [c for row in self.figures.rows for c in row.columns] + list(self.figures.students.values())
        ways = {column.cost_from for column in columns}
        if 'timing' in ways:
            lines.append(
                'Time of a method is that of its step over that of the plain student’s, medians of steps of both that '
                'alternated in one process.'
            )
        if 'runs' in ways:
            gpu = any(r['device'] != 'cpu' for r in students)
            lines.append(
                f'Time with a ~ is rough: {"wall" if gpu else "processor"} time of the training loop over that of the '
                'plain student of the same seed; runs side by side slow each other. Below 1 it is ~1.'
            )
        lines.append('Time of plain students is told by their steps. No time holds that of the teacher’s training.')
        lines.append('Memory is the peak above what the process held before.')
        for stage in (r for r in records if r['kind'] == 'first_stage' and r.get('split') == 'val'):
            lines.append(
                f'{method_or_new(stage["method"]).title} has a first run of {stage["steps"]} steps, once for all '
                'seeds, which its time leaves out.'
            )
        versions: dict[str, dict[str, None]] = {}
        for record in records:
            for key, value in (record.get('versions') or {}).items():
                versions.setdefault(key, {})[str(value)] = None
        lines.append('Versions: ' + ', '.join(f'{key} {" and ".join(known)}' for key, known in versions.items()) + '.')
        machines = dict.fromkeys(_machine(r['hardware'], r['device']) for r in records if r.get('hardware'))
        lines.append(f'Hardware: {"; ".join(machines)}.')
        commits = [_commit(str(r['commit'])) for r in records if r.get('commit')]
        if commits:
            changed = sum('+' in commit for commit in commits)
            uncommitted = f'; uncommitted changes in {changed} of {len(commits)} runs' if changed else ''
            named = dict.fromkeys(commits)
            lines.append(f'Commit{"s" if len(named) > 1 else ""}: {", ".join(named)}{uncommitted}.')
        commands = list(dict.fromkeys(r['repeat'] for r in [*students, *records] if r.get('repeat')))
        if commands:
            more = ', for instance' if len(commands) > 1 else ''
            lines.append(f'Each record holds the command that repeats it{more}: `{commands[0]}`.')
        return lines


def report_setting(
    records: Sequence[Mapping], reasons: Mapping[str, Mapping] | None = None, note: str = ''
) -> SettingReport:
    """The report of one setting.

    Args:
        records: Finished runs of the setting, at least one; any of its cells may be absent.
        reasons: Method's name → why it does not help (text, factor and seeds), for those that do not.
        note: What a reader has to know of the setting.

    Raises:
        DataError: There are no records, or those of several settings.
        RuntimeError: A student did not start, or was not fed, as the plain one.
    """
    return SettingReport(collect(records), dict(reasons or {}), note)


def write_report(
    records: Sequence[Mapping], folder: str | Path, reasons: Mapping[str, Mapping] | None = None, note: str = ''
) -> dict[str, Path]:
    """Write ``report.md``, ``report.csv``, ``gains.png`` and ``pareto.png`` of one setting into a folder.

    Args:
        records: As of :func:`report_setting`.
        folder: Where to; made if absent.
        reasons: As of :func:`report_setting`.
        note: Likewise.

    Returns:
        File name → path.
    """
    report, folder = report_setting(records, reasons, note), Path(folder)
    table = io.StringIO()
    writer = csv.DictWriter(table, _CSV, lineterminator='\n')
    writer.writeheader()
    writer.writerows(report.csv_rows())
    files = {name: folder / name for name in ('report.md', 'report.csv', 'gains.png', 'pareto.png')}
    plot_gains(report.figures, files['gains.png'])
    plot_pareto(report.figures, files['pareto.png'])
    page = (
        report.markdown(pictures=True).replace('\n### ', '\n## ').removeprefix('#')
    )  # by itself it begins with a title
    for name, text in (('report.md', page), ('report.csv', table.getvalue())):
        with atomic_path(files[name]) as temporary:
            temporary.write_text(text, encoding='utf-8')
    return files


# --- parts ------------------------------------------------------------------------------------------------------------

_CSV = ['setting', 'name', 'title', 'family', 'weights_are', 'source', 'column', 'factor', 'seeds', 'diverged']
_CSV += [
    'mAP',
    'mAP_std',
    'gain',
    'gain_low',
    'gain_high',
    'verdict',
    'gap_closed',
    'time_ratio',
    'time_from',
    'peak_mib',
]
_CSV += ['peak_ratio', 'loss_ratio', 'holdout_mAP', *_METRICS]


def _csv_gain(difference: Difference) -> dict:
    known = dict(gain=difference.mean, gain_low=difference.low, gain_high=difference.high)
    return {key: 100 * value for key, value in known.items() if value is not None} | dict(verdict=difference.verdict)


def _csv(figures: SettingFigures, found: Column | None = None, **known) -> dict:
    row = dict.fromkeys(_CSV, '') | dict(setting=figures.name)
    if found is not None:
        row |= dict(factor=found.factor, mAP=100 * found.mAP.mean, gap_closed=found.share, time_ratio=found.cost)
        row |= dict(
            time_from=found.cost_from, peak_mib=found.peak, peak_ratio=found.peak_ratio, loss_ratio=found.loss_ratio
        )
        row |= dict(seeds=' '.join(map(str, found.values)), diverged=' '.join(map(str, found.diverged)))
        if found.mAP.std is not None:
            row['mAP_std'] = 100 * found.mAP.std
        if found.gain is not None and known.get('name') != 'plain':
            row |= _csv_gain(found.gain)
        row |= {key: 100 * value for key, value in found.metrics.items() if key in _METRICS}
    if known.get('name') == 'plain':
        row['gap_closed'] = ''
    row |= known
    return {
        key: '' if value is None else round(value, 4) if isinstance(value, float) else value
        for key, value in row.items()
    }


def _count(columns: Sequence[tuple[MethodRow, Column | None]], figures: SettingFigures) -> dict:
    """Methods by verdict, and whether the bars are reached, of one column of the table.

    Args:
        columns: Each method and its column.
        figures: Of the setting; its plan has the number of methods, and the seeds that make a verdict final.
    """
    known = [(row, column) for row, column in columns if column is not None and column.gain is not None]
    judged = [(row, column) for row, column in known if column.gain.half is not None]
    found: dict = {verdict: [r.method.name for r, c in judged if c.verdict == verdict] for verdict in _VERDICTS}
    found['one_seed'] = [row.method.name for row, column in known if column.gain.half is None]
    found['of'] = len(judged) if figures.planned is None else figures.planned
    found['share_helping'] = len(found['helps']) / found['of'] if judged else None
    seeds = set((figures.plan or {}).get('seeds', ()))
    final = [column for _, column in judged if column.verdict != 'helps' and seeds <= column.values.keys()]
    if judged and found['share_helping'] >= HELP_BAR:
        found['enough_help'] = True
    else:
        possible = found['of'] - len(final)
        found['enough_help'] = None if not judged or possible >= HELP_BAR * found['of'] else False
    above = above_after_holm([column.gain for _, column in judged])
    found['after_holm'] = [row.method.name for (row, _), stays in zip(judged, above) if stays]
    best = max(
        (pair for pair in judged or known if pair[1].share is not None), key=lambda pair: pair[1].share, default=None
    )
    whole = best is not None and figures.complete(best[1])
    found['best_share'] = best and dict(method=best[0].method.name, share=best[1].share, gain=best[1].gain)
    found['enough_gap'] = best[1].share >= GAP_BAR if whole else None
    if len(judged) < 2 or figures.synthetic:
        found['enough_help'] = found['enough_gap'] = None
    ranked = [row for row, column in judged if figures.complete(column)]
    of = {row.method.name: column for row, column in judged}
    ranked.sort(key=lambda row: -of[row.method.name].gain.mean)
    found['ranked'] = [row.method.name for row in ranked]
    level = level_with(ranked[0], ranked, lambda row: of[row.method.name]) if ranked else []
    found['level'] = [row.method.name for row in level]
    return found


def _ours(figures: SettingFigures) -> tuple[set[str], bool]:
    """The methods whose weights are this repository's, and whether these are all, so that no row needs a mark."""
    ours = {row.method.name for row in figures.rows if row.method.weights_are == 'ours'}
    return ours, len(ours) == len(figures.rows) > 0


def _student(role: str, figures: SettingFigures) -> str:
    """A row's name."""
    also = role == 'plain_longer' and figures.longer_as_teacher
    return STUDENTS[role] + (', as long as the teacher' if also else '')


def _commit(text: str) -> str:
    """Twelve digits, and what follows a plus: ``0123456789ab+changes``."""
    digits, plus, rest = text.partition('+')
    return digits[:12] + plus + rest


_VERDICTS = ('helps', 'hurts', 'unclear')
_TARGETS = (
    'kd_det’s own targets for real data: at least two thirds of the methods above plain with the interval clear of '
    'zero, and a best one that closes at least half of the gap'
)
_LONGER = ('plain_longer', 'plain_as_teacher')


def _verdicts(differences: Sequence[Difference]) -> str:
    """``helps 2, hurts 0, unclear 1``."""
    verdicts = [difference.verdict for difference in differences]
    return ', '.join(f'{verdict} {verdicts.count(verdict)}' for verdict in _VERDICTS)


def _map_cells(column: Column | None) -> list[str]:
    """mAP, difference to plain, share of the gap."""
    if column is None:
        return [say.NOTHING] * 3
    return [say.percent(column.mAP), say.gain(column.gain), say.share(column.share)]


def _cost_cells(columns: Sequence[Column], shown: Column | None = None) -> list[str]:
    """Time, memory, seeds and diverged runs; two numbers where the columns differ, published first."""
    if not columns:
        return [say.NOTHING] * 5
    shown = shown or columns[0]
    counts = [[str(len(c.values)) for c in columns], [str(len(c.diverged)) for c in columns]]
    counts = [' / '.join(texts if len(set(texts)) > 1 else texts[:1]) for texts in counts]
    return [say.cost(shown.cost, shown.cost_from), say.whole(shown.peak), say.ratio(shown.peak_ratio), *counts]


def _runs(cells: Sequence[str]) -> list[str]:
    """Names of cells, those that differ in their seeds together: ``fgd/x1, seeds 0, 2``."""
    seeds: dict[str, list[str]] = {}
    for cell in cells:
        run, mark, seed = cell.rpartition('/seed')
        seeds.setdefault(run if mark else cell, []).extend([seed] if mark else [])
    return [f'{r}, seed{"s" if len(s) > 1 else ""} {", ".join(s)}' if s else r for r, s in seeds.items()]


def _met(reached: bool | None, unknown: str = 'unknown') -> str:
    return unknown if reached is None else 'met' if reached else 'missed'


def _bullets(lines: Sequence[str]) -> str:
    return '\n'.join(f'- {line}' for line in lines)


def _range(values) -> str:
    """``600``, or ``300 to 600``."""
    values = sorted(set(values))
    if not values:
        return '?'
    return f'{values[0]:g}' if len(values) == 1 else f'{values[0]:g} to {values[-1]:g}'


def _machine(hardware: Mapping, device: str) -> str:
    gpu = hardware.get('gpu')
    cpu = f'{hardware.get("cpu")}, {hardware.get("cores")} cores, threads per run: {hardware.get("threads")}'
    return f'{gpu} ({cpu})' if gpu and device != 'cpu' else cpu
