"""Where reports go: a folder per setting, and the repository's README and docs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from kd_det.bench.report import choice_section, readme_section, write_report
from kd_det.errors import DataError
from kd_det.visualization import write_between_marks

__all__ = ['MARKS', 'by_setting', 'publish', 'read_notes', 'read_reasons', 'write_reports']

#: Part of README.md → the marks around it.
MARKS = dict(
    table=('<!-- benchmark:begin -->', '<!-- benchmark:end -->'),
    choice=('<!-- choice:begin -->', '<!-- choice:end -->'),
)
#: Why methods do not help, by setting and method, found by somebody who looked; beside the results.
REASONS = 'bench_reasons.json'
#: What a reader has to know of a setting, such as what was added after figures were seen; beside the results, too.
NOTES = 'bench_notes.json'


def by_setting(records: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    """The records of each setting that has a plain student; without one there is nothing to compare with."""
    found: dict[str, list[Mapping]] = {}
    for record in records:
        found.setdefault(record['setting'], []).append(record)
    plain = {r['setting'] for r in records if r['kind'] == 'student' and r['role'] == 'plain'}
    return {name: mine for name, mine in found.items() if name in plain}


def read_reasons(path: Path) -> dict[str, dict[str, dict]]:
    """Setting → method → reason, found by somebody who looked; nothing if there is no such file.

    A reason is ``{"text": …, "factor": 1.0, "seeds": 3}``: of the column at that factor of the published weights, when
    it had so many seeds. The report says so where its column is another by now.

    Raises:
        DataError: If it is no such table.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        return {
            str(setting): {
                str(name): dict(text=str(r['text']), factor=float(r['factor']), seeds=int(r['seeds']))
                for name, r in mine.items()
            }
            for setting, mine in content.items()
        }
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise DataError(
            f"reasons: '{path}' is no table of setting → method → text, factor and seeds ({error!r})."
        ) from error


def read_notes(path: Path) -> dict[str, str]:
    """Setting → note; nothing if there is no such file.

    Raises:
        DataError: If it is no such table.
    """
    if not path.is_file():
        return {}
    try:
        return {str(setting): str(note) for setting, note in json.loads(path.read_text(encoding='utf-8')).items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"notes: '{path}' is no table of setting → text ({error}).") from error


def write_reports(
    records: Sequence[Mapping],
    folder: Path,
    beside: Path | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Path]:
    """Write ``report.md``, ``report.csv`` and the pictures of each setting into ``folder/<setting>``.

    Args:
        records: Of any settings.
        folder: Where to; made if absent.
        beside: Folder of the results, whose reasons and notes go into the reports; ``folder`` if None.
        only: Names of the settings to report; None for all. One without a plain student has no report.

    Returns:
        Setting → its ``report.md``.
    """
    beside = folder if beside is None else beside
    reasons, notes = read_reasons(beside / REASONS), read_notes(beside / NOTES)
    return {
        name: write_report(mine, folder / name, reasons.get(name), notes.get(name, ''))['report.md']
        for name, mine in by_setting(records).items()
        if only is None or name in only
    }


def publish(records: Sequence[Mapping], repo: Path) -> list[Path]:
    """Write the reports to ``docs/results``, and table and choice into README.md, between their marks.

    Raises:
        DataError: If README.md has not the marks, or nothing was measured.
    """
    settings = by_setting(records)
    if not settings:
        raise DataError('--write-readme: the results hold no setting with a plain student.')
    results = repo / 'docs' / 'results'
    reports = write_reports(records, results, results)
    links = ', '.join(f'[{name}](docs/results/{name}/report.md)' for name in reports)
    table = f'{readme_section(settings)}\n\nAll figures, plots and notes: {links}.'
    for name, text in (('table', table), ('choice', choice_section(settings))):
        write_between_marks(repo / 'README.md', *MARKS[name], text)
    return [repo / 'README.md', *reports.values()]
