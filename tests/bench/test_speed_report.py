"""Tables of what the benchmark of steps measured."""

import json

import pytest

from kd_det.bench.speed_report import judge, speed_section


def value(median, width=0.01):
    return dict(median=median, low=median - width, high=median + width)


@pytest.fixture
def steps():
    seconds = {'student': value(0.6), 'extract_feat': value(0.4), 'kd_det fp32': value(0.98)}
    razor = {f'mmrazor {kind}': value(1.0) for kind in ('FpnTeacherDistill', 'SingleTeacherDistill')}
    return dict(
        pkd=dict(
            seconds={**seconds, **razor}, to_floor={'kd_det fp32': value(0.98), **{k: value(1.0) for k in razor}},
            to_mmrazor={'fp32 / SingleTeacherDistill': value(0.9), 'fp32 / FpnTeacherDistill': value(0.95)},
            teacher=dict(fp32=value(0.85)),
            peak_mib={'student': 100.0, 'kd_det fp32': 120.0, **dict(zip(razor, (125.0, 110.0)))},
        ),
        mgd=dict(seconds=seconds, to_floor={'kd_det fp32': value(1.09)}, teacher=dict(fp32=value(0.95))),
    )  # fmt: skip


def entry(varied, ours=1.0, **sizes):
    held = dict(ours=0.5, plain=50.0)
    return dict(
        varied=varied, channels=256, batch=2, held_per_input=held, gib=dict(ours=0.01, plain=1.0), **sizes,
        seconds=dict(ours=value(0.002)), to_first=value(ours), not_run='the plain formula holds 9.0 GiB',
    )  # fmt: skip


@pytest.fixture
def losses():
    boxes = [entry('boxes', boxes=5), entry('boxes', 1.31, boxes=200)]
    sizes = [entry('size', size=[64, 64]), entry('size', 17.0, size=[256, 256]), entry(None, size=[100, 168])]
    return dict(fgd=boxes, nst=sizes)


def test_every_bar_that_was_measured_is_judged(steps, losses):
    rows = {what: (bar, shown, verdict) for what, bar, shown, verdict in judge(steps, losses)}
    assert rows['step / L, PKD, float32 teacher'] == ('0.99', '0.980 (0.970 to 0.990)', 'met')
    assert rows['step / L, MGD, float32 teacher'][2] == 'missed by 0.9%'
    assert rows["step / mmrazor's SingleTeacherDistill, PKD, float32 teacher"][2] == 'missed by 12.5%'
    assert rows['teacher / plain extract_feat, taps of PKD, float32 teacher'][2] == 'met'
    assert rows['teacher / plain extract_feat, taps of MGD, float32 teacher'][2] == 'missed by 5.6%'
    assert rows["peak memory / mmrazor's best, PKD"] == ('1.00', '1.091 (120 / 110 MiB)', 'missed by 9.1%')
    assert rows['NST: memory / the plain formula’s, C = 256, 100×168, 2 images'][1:] == (
        '0.0100 (0.010 / 1 GiB)',
        'met',
    )
    assert rows['FGD alone: time with 200 boxes an image / with 5'][2] == 'missed by 0.8%'
    growth = 'growth of time from 64² to 256² over that of H·W, largest of all losses on maps (nst)'
    assert rows[growth] == ('1.10', '1.062', 'met')
    assert len(rows) == 9


def test_what_was_not_measured_is_not_in_the_table(steps):
    del steps['pkd']['to_mmrazor'], steps['pkd']['peak_mib'], steps['pkd']['teacher'], steps['mgd']
    assert [what for what, *_ in judge(steps, {})] == ['step / L, PKD, float32 teacher']
    assert list(judge({}, {})) == []


def test_the_section_names_command_versions_and_hardware(steps, losses):
    result = dict(
        steps=steps, losses=losses, batch=[2, 3, 320, 320], boxes_per_image=7, rounds=9, warmup=2, autocast=None,
        device='A Processor', threads=2, versions=dict(torch='2.13.0'), command='python tools/benchmark.py x.py',
        finished='2026-01-02T03:04:05+00:00',
    )  # fmt: skip
    text = speed_section([json.loads(json.dumps(result))])
    assert '`python tools/benchmark.py x.py`: batch 2×3×320×320, 7 boxes an image, autocast none; 9 rounds' in text
    assert 'A Processor, 2 threads; torch 2.13.0; 2026-01-02' in text
    assert '| pkd | 1000 | 0.980 (0.970 to 0.990) | 1.000 (0.990 to 1.010) |' in text
    assert '| mgd | 1000 | 1.090 (1.080 to 1.100) | – | – | – |' in text
    assert '| nst | size 256×256 | 2.0 | the plain formula holds 9.0 GiB | 17.00 | 0.50 | 50.00 |' in text
    bare = speed_section([dict(result, steps={}, losses={})])
    assert bare.startswith('### What was measured') and 'boxes an image' not in bare
