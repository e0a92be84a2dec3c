"""Where reports go: a folder per setting, and the repository's README and docs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from kd_det.bench.report import choice_section, readme_section, write_report
from kd_det.errors import DataError
from kd_det.visualization import write_between_marks

__all__ = ['MARKS', 'by_setting', 'publish', 'read_reasons', 'write_reports']

#: Part of README.md → the marks around it.
MARKS = dict(
    table=('<!-- benchmark:begin -->', '<!-- benchmark:end -->'),
    choice=('<!-- choice:begin -->', '<!-- choice:end -->'),
)
#: Why methods do not help, by setting and method, found by somebody who looked; beside the results.
REASONS = 'bench_reasons.json'


def by_setting(records: Sequence[Mapping]) -> dict[str, list[Mapping]]:
    """The records of each setting that has a plain student; without one there is nothing to compare with."""
    found: dict[str, list[Mapping]] = {}
    for record in records:
        found.setdefault(record['setting'], []).append(record)
    plain = {r['setting'] for r in records if r['kind'] == 'student' and r['role'] == 'plain'}
    return {name: mine for name, mine in found.items() if name in plain}


def read_reasons(path: Path) -> dict[str, dict[str, str]]:
    """Setting → method → reason; nothing if there is no such file.

    Raises:
        DataError: If it is no such table.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        return {str(setting): {str(k): str(v) for k, v in mine.items()} for setting, mine in content.items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"reasons: '{path}' is no table of setting → method → text ({error}).") from error


def write_reports(
    records: Sequence[Mapping],
    folder: Path,
    reasons: Mapping[str, Mapping[str, str]] | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Path]:
    """Write ``report.md``, ``report.csv`` and the pictures of each setting into ``folder/<setting>``.

    Args:
        records: Of any settings.
        folder: Where to; made if absent.
        reasons: Setting → method → why it does not help.
        only: Names of the settings to report; None for all. One without a plain student has no report.

    Returns:
        Setting → its ``report.md``.
    """
    return {
        name: write_report(mine, folder / name, (reasons or {}).get(name))['report.md']
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
    reports = write_reports(records, results, read_reasons(results / REASONS))
    links = ', '.join(f'[{name}](docs/results/{name}/report.md)' for name in reports)
    table = f'{readme_section(settings)}\n\nAll figures, plots and notes: {links}.'
    for name, text in (('table', table), ('choice', choice_section(settings))):
        write_between_marks(repo / 'README.md', *MARKS[name], text)
    return [repo / 'README.md', *reports.values()]
