"""Tables of what the benchmark of steps measured."""

import json

import pytest

from kd_det.bench.speed_report import judge, speed_section
from kd_det.errors import ConfigError


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
    what = "peak memory, networks included / mmrazor's best, PKD"
    assert rows[what] == ('1.00', '1.091 (120 / 110 MiB)', 'missed by 9.1%')
    steps['pkd']['rest_mib'] = {
        'kd_det fp32': 80.0,
        **{call: 100.0 for call in steps['pkd']['peak_mib'] if 'razor' in call},
    }
    assert dict((row[0], row[2]) for row in judge(steps, {}))[what] == '0.952 (200 / 210 MiB)'
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


def test_auto_is_judged_as_fp32(steps, losses):
    renamed = json.loads(json.dumps(steps).replace('fp32', 'auto'))
    assert list(judge(renamed, {})) == list(judge(steps, {})) != []


def test_the_teacher_is_judged_for_methods_that_read_the_neck_alone(steps):
    rows = judge(dict(crosskd=steps['mgd']), {})
    assert not any(what.startswith('teacher') for what, *_ in rows)


def result_of(steps, losses, **changes):
    result = dict(
        steps=steps, losses=losses, batch=[2, 3, 320, 320], boxes_per_image=7, rounds=9, warmup=2, autocast=None,
        device='A Processor', threads=2, versions=dict(torch='2.13.0'), command='python tools/benchmark.py x.py',
        finished='2026-01-02T03:04:05+00:00',
    )  # fmt: skip
    return json.loads(json.dumps({**result, **changes}))


def test_results_with_other_methods_share_tables(steps, losses):
    parts = [result_of({name: job}, {}) for name, job in steps.items()]
    parts += [result_of({}, {name: entries}) for name, entries in losses.items()]
    whole = speed_section([result_of(steps, losses)])
    assert speed_section(parts).split('### What')[0] == whole.split('### What')[0]


@pytest.mark.parametrize('part, name', [('steps', 'pkd'), ('losses', 'nst')])
def test_a_name_in_two_results_is_an_error(steps, losses, part, name):
    first, second = result_of(steps, losses, command='first'), result_of({}, {}, command='second')
    second[part] = {name: first[part][name]}
    with pytest.raises(ConfigError, match=f'{part} of {name!r} are in two results, of `first` and of `second`'):
        speed_section([first, second])


@pytest.mark.parametrize('gpu', [dict(device='NVIDIA H200'), dict(device='Some Card', device_type='cuda')])
def test_results_of_a_gpu_have_tables_without_a_verdict(steps, losses, gpu):
    text = speed_section([result_of(steps, losses, **gpu)])
    assert '### Steps\n' in text and '### Losses alone\n' in text and 'limits' not in text
    both = speed_section([result_of(steps, losses), result_of(steps, losses, **gpu)])
    assert '### Against our own limits: A Processor\n' in both and both.count('limits') == 1
    assert f'### Steps: {gpu["device"]}\n' in both and '### Steps: A Processor\n' in both


def test_steps_under_autocast_are_not_judged(steps):
    text = speed_section([result_of(steps, {}, autocast='bf16'), result_of(steps, {}, command='other')])
    assert '### Steps: A Processor, autocast bf16\n' in text and text.count('limits') == 1


def test_a_student_that_teaches_itself_has_a_dash_for_its_teacher(steps):
    itself = dict(
        seconds={'student': value(0.6), 'kd_det auto': value(0.63)}, to_floor={'kd_det auto': value(1.05)},
        peak_mib={'student': 100.0, 'kd_det auto': 105.0},
    )  # fmt: skip
    text = speed_section([result_of(dict(itself=itself, mgd=steps['mgd']), {})])
    assert '| itself | 600 | – | 600 | 1.050 (1.040 to 1.060) | – | 100 | 105 | – |' in text
    assert '| mgd | 600 | 400 | 1000 | – | 1.090 (1.080 to 1.100) | – | – | – |' in text


def test_what_was_not_measured_of_memory_is_a_dash(steps):
    steps['pkd'].update(rest_mib={'student': 40.0})
    del steps['pkd']['peak_mib']['kd_det fp32']
    text = speed_section([result_of(dict(pkd=steps['pkd']), {})])
    assert '| peak MiB: student | peak MiB: kd_det fp32 | peak MiB: mmrazor FpnTeacherDistill |' in text
    assert '| 100 (40) | – | 125 | 110 |' in text


def test_the_section_names_command_versions_and_hardware(steps, losses):
    result = result_of(steps, losses)
    text = speed_section([result])
    assert '`python tools/benchmark.py x.py`: batch 2×3×320×320, 7 boxes an image, autocast none; 9 rounds' in text
    assert 'A Processor, 2 threads; torch 2.13.0; 2026-01-02' in text
    assert '| pkd | 600 | 400 | 1000 | 0.980 (0.970 to 0.990) | 1.000 (0.990 to 1.010) |' in text
    assert '| mgd | 600 | 400 | 1000 | 1.090 (1.080 to 1.100) | – | – | – |' in text
    assert '| nst | size 256×256 | 2.0 | the plain formula holds 9.0 GiB | 17.00 | 0.50 | 50.00 |' in text
    bare = speed_section([dict(result, steps={}, losses={})])
    assert bare.startswith('### What was measured') and 'boxes an image' not in bare


def test_memory_that_nobody_measured_has_no_columns(steps):
    assert 'peak MiB' not in speed_section([result_of(dict(mgd=steps['mgd']), {})])


def test_ours_beside_both_ways_of_mmrazor(steps):
    text = speed_section([result_of(steps, {})])
    assert '| kd_det fp32 / mmrazor SingleTeacherDistill | kd_det fp32 / mmrazor FpnTeacherDistill |' in text
    assert '| 0.900 (0.890 to 0.910) | 0.950 (0.940 to 0.960) |' in text
    note = "runs the teacher's whole forward in every step, head and losses included"
    assert note in text and note not in speed_section([result_of(dict(mgd=steps['mgd']), {})])


@pytest.mark.parametrize('changes', [dict(batch=[1, 3, 320, 320]), dict(batch=[2, 3, 64, 64]), dict(rounds=6)])
def test_steps_that_were_measured_otherwise_have_no_verdict(steps, changes):
    text = speed_section([result_of(steps, {}, **changes)])
    assert '### Steps\n' in text and 'limits' not in text


def test_losses_that_were_measured_otherwise_have_no_verdict(losses):
    for entry in losses['fgd']:
        entry['channels'] = 16
    text = speed_section([result_of({}, losses, batch=[1, 3, 64, 64])])
    assert 'limits' in text and 'FGD alone' not in text
    assert 'limits' not in speed_section([result_of({}, losses, rounds=2)])
