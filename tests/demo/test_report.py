"""Summary, table and README section from made-up figures."""

from __future__ import annotations

import copy

import pytest

from kd_det.demo.report import MARK_BEGIN, MARK_END, demo_table, summarise, write_into_readme
from kd_det.errors import DataError


def run(name: str, seed: int, mAP: float, **other) -> dict:
    metrics = dict(mAP=mAP, AP50=mAP + 0.2, AP75=mAP, small=0.1, medium=0.2, large=-1.0)
    return dict(name=name, seed=seed, metrics=metrics, train_seconds=61.4, parameters=1234567, flops=98765432, **other)


RUNS = [
    run('teacher', 0, 0.60),
    run('plain', 0, 0.30),
    run('fgd', 0, 0.42),
    run('teacher', 1, 0.50),
    run('plain', 1, 0.40),
    run('fgd', 1, 0.44),
]


def results(runs: list[dict], seeds: list[int]) -> dict:
    return dict(
        summary=summarise(runs),
        data=dict(train=240, val=120, image_size=160),
        settings=dict(seeds=seeds, epochs=8, teacher_epochs=16, reuse_teacher=len(runs) % 3 != 0),
        hardware=dict(gpu=None, threads=2),
    )


def test_summary_means_and_sample_deviations():
    summary = summarise(RUNS)
    assert summary['fgd']['mAP']['mean'] == pytest.approx(0.43)
    assert summary['fgd']['mAP']['std'] == pytest.approx(0.02 / 2**0.5)
    assert summary['fgd']['mAP']['values'] == [0.42, 0.44]
    # means: teacher 0.55, plain 0.35, fgd 0.43
    assert summary['fgd']['gap_closed']['mean'] == pytest.approx(0.4)
    assert summary['fgd']['gap_closed']['per_seed'] == pytest.approx([0.4, 0.4])
    assert 'gap_closed' not in summary['plain'] and 'gap_closed' not in summary['teacher']


def test_one_teacher_for_all_seeds():
    summary = summarise([r for r in RUNS if (r['name'], r['seed']) != ('teacher', 1)])
    assert summary['fgd']['gap_closed']['per_seed'] == pytest.approx([0.4, 0.2])


def test_no_gap_is_no_share():
    summary = summarise([run('teacher', 0, 0.3), run('plain', 0, 0.3), run('fgd', 0, 0.4)])
    assert summary['fgd']['gap_closed'] == dict(mean=None, per_seed=[None])
    assert 'the teacher is no better' in demo_table(results([run('teacher', 0, 0.3), *RUNS[1:3]], [0]))


def test_table_of_one_seed_and_of_two():
    one = demo_table(results(RUNS[:3], [0]))
    assert [line.split()[0] for line in one.splitlines()[2:5]] == ['teacher', 'plain', 'FGD']
    assert '60.0' in one and '±' not in one and '1.23 M' in one and '98.8 M' in one and ' –' in one and '61' in one
    assert 'FGD: +12.0 mAP over the plain student, 40% of the gap to the teacher.' in one
    two = demo_table(results(RUNS, [0, 1]), markdown=True)
    assert '| FGD student | 43.0 ± 1.4 |' in two and '2 seeds, mean ± standard deviation; CPU' in two
    shared = demo_table(results([RUNS[0], *RUNS[1:3], *RUNS[4:]], [0, 1]))
    assert '2 seeds, mean ± standard deviation, one teacher (seed 0) for all; CPU' in shared


def test_readme_section_is_replaced_and_the_rest_kept(tmp_path):
    readme = tmp_path / 'README.md'
    readme.write_text(f'# Title\n\n{MARK_BEGIN}\nold\n{MARK_END}\n\nend ±\n', encoding='utf-8')
    for text in ('new', 'newer'):
        write_into_readme(readme, text)
        assert readme.read_text(encoding='utf-8') == f'# Title\n\n{MARK_BEGIN}\n{text}\n{MARK_END}\n\nend ±\n'


@pytest.mark.parametrize('content', ['', MARK_BEGIN, f'{MARK_END}\n{MARK_BEGIN}', f'{MARK_BEGIN}{MARK_END}' * 2])
def test_readme_without_marks_is_left_alone(tmp_path, content):
    readme = tmp_path / 'README.md'
    readme.write_text(content)
    with pytest.raises(DataError, match='once each'):
        write_into_readme(readme, 'new')
    assert readme.read_text() == content


def test_missing_readme_is_named(tmp_path):
    with pytest.raises(DataError, match='README.md.*cannot be read'):
        write_into_readme(tmp_path / 'README.md', 'new')


def test_summary_leaves_the_runs_alone():
    before = copy.deepcopy(RUNS)
    summarise(RUNS)
    assert RUNS == before
