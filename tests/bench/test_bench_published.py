"""The tables of the README and the reports in the docs are what the script makes of the JSON lines beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kd_det.bench import wording as say
from kd_det.bench.figures import collect
from kd_det.bench.ledger import read_records
from kd_det.bench.publish import MARKS, publish

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'docs' / 'results'


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    """A repository whose tables and reports are written anew."""
    repo = tmp_path_factory.mktemp('repo')
    (repo / 'docs' / 'results').mkdir(parents=True)
    shutil.copy(ROOT / 'README.md', repo)
    for path in RESULTS.glob('bench_*.json'):
        shutil.copy(path, repo / 'docs' / 'results')
    publish([record for path in sorted(RESULTS.glob('bench_*.jsonl')) for record in read_records(path)], repo)
    return repo


@pytest.mark.parametrize('part', MARKS)
def test_the_readme_is_written_by_the_script(made, part):
    def text(repo: Path) -> str:
        begin, end = MARKS[part]
        return (repo / 'README.md').read_text().split(begin)[1].split(end)[0]

    assert text(made) == text(ROOT), 'tools/kd_bench.py --report --results docs/results/bench_*.jsonl --write-readme'
    assert len(text(ROOT)) > 500


def test_the_reports_are_written_by_the_script(made):
    reports = sorted((made / 'docs' / 'results').glob('*/report.md'))
    assert len(reports) > 10
    for path in reports:
        assert path.read_text() == (RESULTS / path.parent.name / 'report.md').read_text(), path.parent.name


def test_choice_is_one_screen():
    begin, end = MARKS['choice']
    words = (ROOT / 'README.md').read_text().split(begin)[1].split(end)[0].split()
    assert len(words) < 400


def test_the_note_has_the_figures_of_the_seeds_that_were_added():
    """Seeds 5 to 9 by themselves: gains, half widths of their intervals and shares of the gap, as the note has them."""
    name = 'bccd_cpu_hetero_half_long'
    note = json.loads((RESULTS / 'bench_notes.json').read_text())[name]
    records = [r for path in RESULTS.glob('bench_*.jsonl') for r in read_records(path) if r['setting'] == name]
    figures = collect([r for r in records if r['kind'] != 'student' or r['seed'] in range(5, 10)])
    assert figures.basis == 'tuned' and len(figures.rows) == 5
    for row in figures.rows:
        gain, share = row.tuned.gain, say.share(row.tuned.share)
        assert gain.seeds == (5, 6, 7, 8, 9)
        title = row.method.title.split(' (')[0].replace('normalised', 'on normalised maps')
        said = f'{title} at {say.signed(gain.mean)} ± {100 * gain.half:.1f} ({share})'
        assert said in note, said
