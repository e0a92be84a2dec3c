"""The benchmark's statistics against figures worked out by hand."""

from __future__ import annotations

import math

import pytest

from kd_det.bench.statistics import (
    check_fairness,
    choose_factor,
    gap_share,
    holm,
    mean_ratio,
    paired_difference,
    spread,
    verdict,
)


def test_spread_is_that_of_a_sample():
    found = spread([1.0, 2.0, 3.0, 6.0])
    assert found.mean == 3.0 and found.n == 4
    assert found.std == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3))
    assert spread([0.25]).std is None
    with pytest.raises(ValueError, match='no values'):
        spread([])


def test_interval_by_hand():
    # Differences 1, 2, 3: mean 2, standard deviation 1, t of 2 degrees of freedom at 97.5 % is 4.302653 (tables).
    found = paired_difference({0: 11.0, 1: 22.0, 2: 33.0}, {0: 10.0, 1: 20.0, 2: 30.0})
    assert found.mean == pytest.approx(2.0) and found.half == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert (found.low, found.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-5)
    assert found.verdict == 'unclear'
    # 90 %: t is 2.919986, and the interval leaves zero.
    assert paired_difference({0: 1.0, 1: 2, 2: 3}, {0: 0.0, 1: 0, 2: 0}, 0.9).low == pytest.approx(0.31415, abs=1e-4)


def test_only_common_seeds_count():
    found = paired_difference({0: 5.0, 2: 7.0, 9: 100.0}, {0: 4.0, 1: -50.0, 2: 6.0})
    assert found.seeds == (0, 2) and found.mean == 1.0 and found.half < 0.01 and found.verdict == 'helps'
    alone = paired_difference({3: 5.0}, {3: 4.0, 4: 0.0})
    assert (alone.mean, alone.half, alone.low, alone.high, alone.verdict) == (1.0, None, None, None, 'unclear')
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_equal_differences_are_as_uncertain_as_their_rounding():
    # Each value is off by up to 0.0005, uniformly: variance 0.001² / 12; twice that for a difference.
    first, second = {0: 0.102, 1: 0.202, 2: 0.302}, {0: 0.1, 1: 0.2, 2: 0.3}
    found = paired_difference(first, second)
    assert found.half == pytest.approx(4.302653 * math.sqrt(2 * 0.001**2 / 12) / math.sqrt(3), rel=1e-5)
    assert found.verdict == 'helps' and paired_difference({0: 0.101, 1: 0.201, 2: 0.301}, second).verdict == 'unclear'
    assert paired_difference(first, second, resolution=0.0).half == pytest.approx(0, abs=1e-12)
    assert paired_difference({0: 1.0, 1: 1.0}, {0: 0.5, 1: 0.5}, resolution=0.0).p == 0.0


def test_p_value_fits_the_interval():
    # Mean 2, deviation 1, three seeds: t = 2 sqrt(3); two degrees of freedom have P = 1 - t / sqrt(2 + t²).
    found = paired_difference({0: 1.0, 1: 2.0, 2: 3.0}, {0: 0.0, 1: 0.0, 2: 0.0})
    assert found.p == pytest.approx(1 - math.sqrt(12) / math.sqrt(14))
    assert paired_difference({0: 1.0}, {0: 0.0}).p is None
    edge = paired_difference({0: 1.0, 1: 2, 2: 3}, {0: 0.0, 1: 0, 2: 0}, confidence=1 - found.p)
    assert edge.low == pytest.approx(0, abs=1e-9)


def test_holm_by_hand():
    # Bars of four tests, smallest first: 0.0125, 0.0167, 0.025, 0.05.
    assert holm([0.04, 0.01, 0.016, 0.2]) == [False, True, True, False]
    assert holm([0.013, 0.013, 0.013, 0.013]) == [False] * 4
    assert holm([0.012, 0.017, 0.001, 0.03]) == [True, True, True, True]
    assert holm([0.012, 0.03, 0.026, 0.001]) == [True, False, False, True], 'what follows the first failure fails'
    assert holm([]) == [] and holm([0.05]) == [True] and holm([0.05], level=0.01) == [False]


def test_pairing_takes_out_what_seeds_share():
    plain = {0: 10.0, 1: 20.0, 2: 30.0}
    found = paired_difference({s: v + 1 + 0.1 * s for s, v in plain.items()}, plain)
    assert found.mean == pytest.approx(1.1) and found.verdict == 'helps'


@pytest.mark.parametrize(
    ('low', 'high', 'expected'),
    [(0.1, 2, 'helps'), (-2, -0.1, 'hurts'), (-1, 1, 'unclear'), (0, 1, 'unclear'), (-1, 0, 'unclear')],
)
def test_verdict(low, high, expected):
    assert verdict(low, high) == expected
    assert verdict(None, None) == 'unclear'


def test_share_of_the_gap():
    assert gap_share(50.0, 40.0, 45.0) == 0.5
    assert gap_share(50.0, 40.0, 35.0) == -0.5 and gap_share(50.0, 40.0, 55.0) == 1.5
    assert gap_share(40.0, 40.0, 45.0) is None and gap_share(30.0, 40.0, 45.0) is None


def test_factor_of_the_best_holdout_figure():
    assert choose_factor({0.2: 0.30, 1.0: 0.29, 5.0: 0.31}) == 5.0
    assert choose_factor({}) is None


def test_ties_go_to_the_factor_nearest_to_one():
    assert choose_factor({0.2: 0.3, 1.0: 0.3, 5.0: 0.3}) == 1.0
    assert choose_factor({0.04: 0.3, 5.0: 0.3, 1.0: 0.1}) == 5.0
    assert choose_factor({0.5: 0.3, 25.0: 0.3}) == 0.5
    assert choose_factor({5.0: 0.3, 0.2: 0.3}) == choose_factor({0.2: 0.3, 5.0: 0.3}) == 0.2


def test_ratio_is_taken_within_seeds():
    assert mean_ratio({0: 20.0, 1: 30.0}, {0: 10.0, 1: 10.0, 2: 1.0}) == 2.5
    assert mean_ratio({0: 1.0}, {0: 0.0}) is None and mean_ratio({0: 1.0}, {1: 1.0}) is None


def student(cell: str, seed: int = 0, **other) -> dict:
    role = cell.split('/')[0]
    role = role if role in ('plain', 'plain_longer', 'plain_as_teacher', 'self_distilled') else 'method'
    same = dict(setting='s', kind='student', diverged=False, initial_weights=f'w{seed}', data=f'd{seed}', steps=100)
    return dict(same, cell=f'{cell}/seed{seed}', role=role, seed=seed) | other


def test_fair_records_pass():
    records = [student(cell, seed) for cell in ('fgd/x1', 'plain', 'self_distilled') for seed in (0, 1)]
    records += [
        student('plain_longer', steps=200, data='other'),
        student('plain_as_teacher', steps=900, data='third'),
        student('mgd/x1', diverged=True, steps=7, data='short'),
        student('plain', setting='other', steps=9),
        student('tune/fgd', kind='tune', steps=9, initial_weights='x', data='y'),
    ]
    check_fairness(records)


@pytest.mark.parametrize(('key', 'value'), [('initial_weights', 'w1'), ('data', 'x'), ('steps', 101)])
def test_unfair_record_is_named(key, value):
    for role in ('fgd/x1', 'self_distilled', 'random_teacher/kd/x1'):
        with pytest.raises(RuntimeError, match=f"'{role}/seed0'.*{key}.*'plain/seed0'"):
            check_fairness([student(role, **{key: value}), student('plain'), student('fgd/x5')])


def test_diverged_runs_must_start_alike():
    with pytest.raises(RuntimeError, match="'mgd/x1/seed0'.*initial_weights"):
        check_fairness([student('plain'), student('mgd/x1', diverged=True, initial_weights='x')])


def test_without_a_whole_plain_run_the_others_are_compared():
    with pytest.raises(RuntimeError, match="'mgd/x1/seed0'.*data"):
        check_fairness([student('fgd/x1'), student('mgd/x1', data='x')])
    short = student('plain', diverged=True, steps=3, data='short')
    check_fairness([short, student('fgd/x1'), student('mgd/x1')])
    with pytest.raises(RuntimeError, match="'mgd/x1/seed0'.*steps"):
        check_fairness([short, student('fgd/x1'), student('mgd/x1', steps=9)])
