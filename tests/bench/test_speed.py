"""Steps that are timed in turn: what is in them, and what the tool writes."""

import json
import re
import runpy
import subprocess
import time
from pathlib import Path

import pytest
import torch
from mmdet.models import ResNet
from mmengine.config import Config
from tiny_families import mask_rcnn, solo
from tiny_models import faster, fpn, retina

from kd_det.bench import speed
from kd_det.bench.razor import KINDS
from kd_det.bench.setting import make_method
from kd_det.bench.speed import Batch, Job, Steps, interleave, jobs_of_config, jobs_of_setting, peak_mib, ratio, spread
from kd_det.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SETTING = str(ROOT / 'configs/bench/synthetic_retina.py')
SIZE = (64, 96)


def wide():
    """A RetinaNet with the five levels that the fragments expect."""
    return retina(neck=dict(fpn(8, 16, 5), start_level=1, add_extra_convs='on_output'), bbox_head=five())


def five():
    head = retina()['bbox_head']
    head['anchor_generator']['strides'] = [8, 16, 32, 64, 128]
    return head


def model_of(name):
    terms, teacher = make_method(name).distill(), dict(config=wide(), checkpoint=None)
    return dict(type='kd_det.DistillDetector', student=wide(), teacher=teacher, distill=terms)


@pytest.fixture(scope='module')
def data():
    return Batch(SIZE, images=2, boxes=3)


# ----------------------------------------------------------------------------------------------------------- steps


def test_the_calls_of_a_job(data):
    steps = Steps(Job('cwd', model_of('cwd'), 'cwd'), data, ['fp32', 'bf16'])
    assert list(steps.calls) == [
        'student', 'extract_feat', 'teacher fp32', 'kd_det fp32', 'teacher bf16', 'kd_det bf16',
        *(f'mmrazor {kind}' for kind in KINDS),
    ]  # fmt: skip
    for call in steps.calls.values():
        call()


@pytest.mark.parametrize('only', ['student', 'extract_feat', 'kd_det fp32', f'mmrazor {KINDS[0]}'])
def test_one_call_builds_nothing_else(data, only):
    assert list(Steps(Job('cwd', model_of('cwd'), 'cwd'), data, ['fp32'], only=only).calls) == [only]


def test_extract_feat_is_mmdets_and_ours_is_folded(data):
    steps = Steps(Job('pkd', model_of('pkd'), 'pkd'), data, ['fp32'], kinds=())
    seen = []
    hook = torch.nn.BatchNorm2d.forward
    try:
        torch.nn.BatchNorm2d.forward = lambda self, x: seen.append(1) or hook(self, x)
        for name, norms in (('extract_feat', 20), ('teacher fp32', 0), ('student', 20), ('kd_det fp32', 20)):
            seen.clear()
            steps.calls[name]()
            assert len(seen) == norms, name
    finally:
        torch.nn.BatchNorm2d.forward = hook


def test_the_teacher_runs_in_every_call_though_it_has_a_cache(data, tmp_path, monkeypatch):
    cfg = model_of('cwd')
    cfg['teacher']['cache'] = dict(path=str(tmp_path / 'cache'))
    steps = Steps(Job('cwd', cfg, 'cwd'), data, ['fp32'])
    count, forward = [], ResNet.forward
    monkeypatch.setattr(ResNet, 'forward', lambda *args: count.append(torch.is_grad_enabled()) or forward(*args))
    for name, call in steps.calls.items():
        count.clear()
        for _ in range(4):
            call()
        assert count.count(False) == (0 if name == 'student' else 4), name  # the student's are with gradients
    assert not (tmp_path / 'cache').exists()
    assert cfg['teacher']['cache'], 'the config of the user is as it was'


@pytest.mark.parametrize('schedule', [dict(warmup=500), dict(begin=3), dict(end=0)])
def test_terms_count_in_full_whatever_their_schedule(data, monkeypatch, schedule):
    found = []
    monkeypatch.setattr(Steps, '_step', lambda self, model: found.append(model.loss(data.inputs, data.samples)))
    for more in ({}, dict(schedule=schedule)):
        cfg = model_of('cwd')
        cfg['distill']['cwd'].update(more)
        Steps(Job('cwd', cfg), data, ['fp32'], kinds=(), only='kd_det fp32').calls['kd_det fp32']()
    plain, scheduled = (losses['loss_cwd'] for losses in found)
    assert plain > 0
    torch.testing.assert_close(scheduled, plain)


def test_all_calls_have_the_same_weights(data, monkeypatch):
    seen = {}
    for name in ('_step', '_extract', '_observe'):
        monkeypatch.setattr(Steps, name, lambda self, model: seen.update({call: model}))
    cfg = model_of('cwd')
    cfg['teacher'].update(fold=False, channels_last=False)
    built = [Steps(Job('cwd', cfg, 'cwd'), data, ['fp32', 'auto'])]
    built.append(Steps(Job('cwd', cfg, 'cwd'), data, ['fp32'], only='kd_det fp32'))  # as in a process of its own
    students, teachers = [], []
    for steps in built:
        for call in steps.calls:
            steps.calls[call]()
            model = seen[call]
            if call == 'extract_feat':
                teachers.append(model)
            elif call == 'student':
                students.append(model)
            else:
                students.append(model.architecture if call.startswith('mmrazor') else model.student)
                teachers.append(model.teacher if call.startswith('mmrazor') else model.teacher.model)
    assert (len(students), len(teachers)) == (8, 8)
    for models in (students, teachers):
        first = models[0].state_dict()
        for other in (model.state_dict() for model in models[1:]):
            both = [key for key in first if key in other]  # our teachers have no heads any more
            assert any(key.startswith('neck') for key in both)
            assert all(torch.equal(first[key], other[key]) for key in both)
    assert not torch.equal(students[0].backbone.conv1.weight, teachers[0].backbone.conv1.weight)


def read(student, teacher):
    return dict(student=student, teacher=teacher, loss=dict(type='kd_det.PKDLoss'))


def forwards(steps, monkeypatch):
    """Of each call: how many backbones ran with and without gradients."""
    seen, forward = [], ResNet.forward
    monkeypatch.setattr(ResNet, 'forward', lambda *args: seen.append(torch.is_grad_enabled()) or forward(*args))
    found = {}
    for name, call in steps.calls.items():
        seen.clear()
        call()
        found[name] = seen.count(True), seen.count(False)
    return found


def test_all_teachers_that_a_term_reads_are_in_a_step(data, monkeypatch):
    one = dict(config=retina(), checkpoint='none.pth', cache=dict(path='none'))
    cfg = dict(
        type='kd_det.DistillDetector', student=retina(), teacher=dict(big=dict(one), small=dict(one), idle=dict(one)),
        distill=dict(a=read('neck', 'big:neck'), b=read('neck', 'small:neck')),
    )  # fmt: skip
    steps = Steps(Job('two', cfg), data, ['fp32', 'bf16'], KINDS[:1])
    assert steps.failed == {f'mmrazor {KINDS[0]}': 'its step has one teacher, with weights of its own'}
    ours = {f'{what} {name}': (n, 2) for name in ('fp32', 'bf16') for what, n in (('teacher', 0), ('kd_det', 1))}
    assert forwards(steps, monkeypatch) == {'student': (1, 0), 'extract_feat': (0, 2), **ours}
    seen = {}
    for name in ('_step', '_extract', '_observe'):
        monkeypatch.setattr(Steps, name, lambda self, *models: seen.update({call: models}))
    for call in steps.calls:
        steps.calls[call]()
    for precision in ('fp32', 'bf16'):
        (model,) = seen[f'kd_det {precision}']
        assert [teacher.precision for teacher in model.teachers.values()] == [precision] * 3
        for plain, name in zip(seen['extract_feat'], ('big', 'small'), strict=True):
            kept = model.teachers[name].model.neck.lateral_convs[0].conv.bias
            assert torch.equal(kept.float(), plain.neck.lateral_convs[0].conv.bias.to(kept.dtype).float())
    big, small = (plain.neck.lateral_convs[0].conv.weight for plain in seen['extract_feat'])
    assert not torch.equal(big, small)


def test_a_moving_average_is_a_copy_of_the_student_in_its_one_precision(data, monkeypatch):
    cfg = dict(model_of('pkd'), teacher=dict(ema=True))
    steps = Steps(Job('mean', cfg, 'pkd'), data, ['fp32', 'bf16'], KINDS[:1])
    assert set(steps.failed) == {'kd_det fp32', 'kd_det bf16', f'mmrazor {KINDS[0]}'}
    assert "the one step is 'kd_det auto'" in steps.failed['kd_det bf16']
    assert steps.precisions == ('auto',)
    assert forwards(steps, monkeypatch) == {
        'student': (1, 0), 'extract_feat': (0, 1), 'teacher auto': (0, 1), 'kd_det auto': (1, 1)
    }  # fmt: skip
    seen = []
    for name in ('_step', '_extract', '_observe'):
        monkeypatch.setattr(Steps, name, lambda self, model: seen.append(model))
    for call in steps.calls.values():
        call()
    plain, average, ours, _ = seen
    for network in (average, ours.student, ours.teacher.model):
        weights = network.state_dict()
        assert network is not plain and all(
            torch.equal(weights[key], value) for key, value in plain.state_dict().items()
        )
    assert plain.training and not average.training


def test_a_moving_average_beside_a_trained_teacher(data, monkeypatch):
    cfg = dict(
        type='kd_det.DistillDetector', student=retina(),
        teacher=dict(m=dict(ema=True), big=dict(config=retina(), checkpoint=None)),
        distill=dict(a=read('neck', 'big:neck'), b=read('neck', 'm:neck')),
    )  # fmt: skip
    steps = Steps(Job('both', cfg), data, ['fp32'], ())
    assert steps.failed == {} and steps.precisions == ('fp32',)
    assert forwards(steps, monkeypatch)['kd_det fp32'] == (1, 2)


SELF_TAUGHT = dict(
    type='kd_det.DistillDetector', student=retina(), distill=dict(a=read('neck[0]', 'student:neck[1]'))
)  # fmt: skip


@pytest.mark.parametrize('teacher', [None, dict(config=retina(), checkpoint=None)])  # to inherit from, never read
def test_a_student_that_teaches_itself_has_its_own_step_alone(data, monkeypatch, teacher):
    steps = Steps(Job('itself', dict(SELF_TAUGHT, teacher=teacher)), data, ['bf16'], ())
    assert list(steps.failed) == ['kd_det bf16'] and steps.precisions == ('auto',)
    assert forwards(steps, monkeypatch) == {'student': (1, 0), 'kd_det auto': (1, 0)}


def test_what_a_first_stage_trains_has_random_weights(data):
    cfg = model_of('ft')
    cfg['distill']['ft']['loss']['paraphraser'] = 'work_dirs/none.pth'
    steps = Steps(Job('ft', cfg, 'ft'), data, ['fp32'], ())
    seen = []
    for call in steps.calls.values():
        call()
    steps._step = seen.append
    steps.calls['kd_det fp32']()
    (loss, *_) = seen[0].terms[0].losses
    assert loss.source is None and all(weight.any() for weight in loss.paraphraser.parameters())
    assert cfg['distill']['ft']['loss']['paraphraser'], 'the config of the user is as it was'


@pytest.mark.parametrize('given, held', [({}, 10_000), (dict(n_data=50), 50)])
def test_crd_has_instances_to_remember(data, given, held):
    cfg = model_of('crd')
    cfg['distill']['crd']['loss'].update(nce_k=16, **given)
    steps = Steps(Job('crd', cfg, 'crd'), data, ['fp32'], (), only='kd_det fp32')
    steps.calls['kd_det fp32']()
    seen = []
    steps._step = seen.append
    steps.calls['kd_det fp32']()
    for loss in seen[0].terms[0].losses:
        fresh = type(loss)(16, 16, n_data=held).memory_v1
        assert (loss.memory_v1 != fresh).any(1).nonzero().flatten().tolist() == list(
            range(6)
        )  # of 2 images, 3 boxes each


@pytest.mark.parametrize('make', [mask_rcnn, solo])
def test_masks_are_there_where_a_training_loads_them(make):
    pipeline = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    cfg = dict(
        SELF_TAUGHT, student=make(), teacher=dict(config=make(), checkpoint=None), distill=dict(a=read(*['neck'] * 2))
    )
    config = Config(dict(model=cfg, train_dataloader=dict(dataset=dict(dataset=dict(pipeline=pipeline)))))
    (job,) = jobs_of_config(config, 'x.py')
    data = Batch(SIZE, images=1, boxes=3)
    for call in Steps(job, data, kinds=()).calls.values():
        call()
    x1, y1, x2, y2 = data.samples[0].gt_instances.bboxes[2].round().int().tolist()
    mask = data.masked[0].gt_instances.masks.masks[2]
    assert mask[y1:y2, x1:x2].all() and mask.sum() == (y2 - y1) * (x2 - x1)
    assert 'masks' not in data.samples[0].gt_instances
    pipeline[0]['with_mask'] = False
    config.train_dataloader.dataset.dataset.pipeline = pipeline
    assert not jobs_of_config(config, 'x.py')[0].masks


def test_every_round_calls_each_once_in_an_order_of_its_own():
    runs = []
    for _ in range(2):
        runs.append([])
        calls = {name: lambda name=name: runs[-1].append(name) for name in 'abcd'}
        seconds = interleave(calls, rounds=20, warmup=1)
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys('abcd', 20)
    order = runs[0]
    assert runs[1] == order
    assert all(sorted(order[at : at + 4]) == list('abcd') for at in range(0, 84, 4))
    assert {(a, b) for a, b in zip(order, order[1:]) if a != b} == {(a, b) for a in 'abcd' for b in 'abcd' if a != b}
    slow = interleave(dict(a=lambda: time.sleep(0.02), b=lambda: None), rounds=3, warmup=0)
    assert min(slow['a']) >= 0.02 > min(slow['b'])


def test_the_peak_is_above_what_stays_from_a_first_call():
    kept = []

    def call():
        if not kept:
            kept.append(torch.ones(64 * 2**18))  # 64 MiB that stay, as buffers do
        torch.ones(48 * 2**18)

    before = speed._tensors_mib('cpu')
    peak, rest = peak_mib(call)
    assert 40 < peak < 60
    assert rest - before == pytest.approx(64, abs=1)


def test_ratios_are_per_round():
    assert ratio([2.0, 9.0, 4.0], [1.0, 2.0, 1.0], [1.0, 1.0, 1.0]) == dict(median=2.0, low=1.5, high=2.5)
    assert spread([3.0]) == dict(median=3.0, low=3.0, high=3.0)


def test_jobs_of_configs_and_settings():
    from kd_det.bench.setting import load_setting

    with pytest.raises(
        ConfigError, match="'x.py' has no model.student and no model.distill; expected a config of a Dis"
    ):
        jobs_of_config(Config(dict(model=wide())), 'x.py')
    first_stage = dict(type='kd_det.ParaphraserTrainer', teacher=dict(config=wide()), distill=dict(ft={}))
    with pytest.raises(ConfigError, match="'x.py' has no model.student; expected"):
        jobs_of_config(Config(dict(model=first_stage)), 'x.py')
    setting = load_setting(SETTING)
    assert [job.name for job in jobs_of_setting(setting)] == list(setting.methods)
    assert setting.methods['ft'].first_stage
    (job,) = jobs_of_setting(setting, ['crosskd'])
    assert set(job.model['distill']) == {'crosskd'} and job.model['teacher']['checkpoint'] is None
    with pytest.raises(ConfigError, match=r"--methods: 'fdg' is none of the methods"):
        jobs_of_setting(setting, ['fdg'])


# ------------------------------------------------------------------------------------------------------------ the tool


def small(folder, teacher=None):
    cfg = dict(model=dict(model_of('nst'), teacher=teacher or dict(config=wide(), checkpoint=None)))
    path = folder / 'small.py'
    Config(cfg).dump(path)
    return str(path)


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(ROOT / 'tools/benchmark.py'))


def test_the_tool_writes_what_it_measured(tmp_path, tool, capsys):
    out, plot = tmp_path / 'x.json', tmp_path / 'x.png'
    size = ['--size', '64', '96', '--batch', '1', '--rounds', '2', '--warmup', '0', '--boxes', '2', '--device', 'cpu']
    tool['main']([small(tmp_path), *size, '--precisions', 'fp32', '--out', str(out), '--plot', str(plot)])
    result = json.loads(out.read_text())
    (found,) = result['steps'].values()
    assert set(found['peak_mib']) == {'student', 'extract_feat', 'kd_det fp32'}
    assert all(value > 0 for value in found['peak_mib'].values())
    assert found['rest_mib']['kd_det fp32'] > found['rest_mib']['student'] > 0 and found['memory_error'] == {}
    assert result['device_type'] == 'cpu'
    assert set(found['to_floor']) == {'kd_det fp32'} and found['to_floor']['kd_det fp32']['median'] > 0
    assert set(found['teacher']) == {'fp32'} and 'to_mmrazor' not in found
    assert result['batch'] == [1, 3, 64, 96] and result['versions']['torch'] == torch.__version__
    assert plot.stat().st_size > 1000
    printed = capsys.readouterr().out
    assert 'left out for ' in printed and 'mmrazor: distill.nst: ' in printed
    assert f'{found["to_floor"]["kd_det fp32"]["median"]:.3f} (' in printed and 'x extract_feat' in printed


def test_timings_outlive_a_process_that_fails(tmp_path, tool, capsys, monkeypatch):
    out, seen = tmp_path / 'x.json', []

    def run(command, **options):
        seen.append(json.loads(out.read_text())['steps'])
        failed = command[-1].endswith('student')
        return subprocess.CompletedProcess(
            command, int(failed), '' if failed else 'a line\n[5.0, 2.0]\n', 'Traceback\nMemoryError: none left\n'
        )

    monkeypatch.setattr(subprocess, 'run', run)
    size = ['--size', '64', '96', '--batch', '1', '--rounds', '1', '--warmup', '0', '--boxes', '2', '--device', 'cpu']
    tool['main']([small(tmp_path), *size, '--out', str(out)])
    assert 'kd_det auto' in seen[0][str(tmp_path / 'small.py')]['seconds']  # before any memory was measured
    (found,) = json.loads(out.read_text())['steps'].values()
    assert found['memory_error'] == dict(student='MemoryError: none left')
    assert found['peak_mib'] == {'extract_feat': 5.0, 'kd_det auto': 5.0}
    printed = capsys.readouterr().out
    assert re.search(r'student .* ms, memory not measured: MemoryError: none left\n', printed)
    assert re.search(r'kd_det auto .* 5 \(2\) MiB', printed)


def test_the_tool_times_a_student_that_teaches_itself(tmp_path, tool, capsys, monkeypatch):
    def run(command, **options):
        return subprocess.CompletedProcess(command, 0, '[5.0, 2.0]\n', '')

    monkeypatch.setattr(subprocess, 'run', run)
    path, out, plot = tmp_path / 'itself.py', tmp_path / 'x.json', tmp_path / 'x.png'
    Config(dict(model=SELF_TAUGHT)).dump(path)
    size = ['--size', '64', '96', '--batch', '1', '--rounds', '2', '--warmup', '0', '--device', 'cpu']
    tool['main']([str(path), *size, '--precisions', 'fp32', '--out', str(out), '--plot', str(plot)])
    printed = capsys.readouterr().out
    assert f'kd_det fp32: left out for {path}, no teacher here has a precision of its own: the one step is' in printed
    (found,) = json.loads(out.read_text())['steps'].values()
    assert list(found['seconds']) == list(found['peak_mib']) == ['student', 'kd_det auto']
    assert 'teacher' not in found and found['to_floor']['kd_det auto']['median'] > 0
    tool['main'](['--report', str(out)])
    table = capsys.readouterr().out
    student = next(line for line in table.splitlines() if str(path) in line).split(' | ')
    assert student[2] == '–' and student[1] == student[3]


def test_losses_beside_their_formulas(tmp_path, tool, monkeypatch, capsys):
    for name, values in (('LOSS_SIZES', (8, 16)), ('LOSS_BATCHES', (1, 2)), ('LOSS_INSTANCES', (8, 16))):
        monkeypatch.setitem(tool['time_losses'].__globals__, name, values)
    out = tmp_path / 'x.json'
    few = ['--rounds', '2', '--warmup', '0', '--channels', '16', '--device', 'cpu', '--out', str(out)]
    tool['main'](['--losses', 'nst', 'sp', *few])
    printed = capsys.readouterr().out
    assert printed.startswith('Losses alone, 16 channels, over size 8/16,') and '320' not in printed
    losses = json.loads(out.read_text())['losses']
    assert [(e['varied'], e.get(e['varied'])) for e in losses['nst']] == [
        ('size', [8, 8]), ('size', [16, 16]), ('batch', 1), ('batch', 2), (None, None)
    ]  # fmt: skip
    assert [e.get('instances') for e in losses['sp']] == [8, 16, None]
    for entry in losses['nst'][:-1]:
        assert entry['held_per_input']['ours'] < entry['held_per_input']['plain']
        assert set(entry['seconds']) == {'ours', 'plain'} and entry['to_plain']['median'] > 0
    assert losses['nst'][0]['to_first']['median'] == 1
    assert losses['nst'][-1]['size'] == [100, 168] and losses['nst'][-1]['gib']['plain'] > 4
    tool['main'](['--losses', 'nst', *few, '--limit-gib', '0'])
    entry = json.loads(out.read_text())['losses']['nst'][0]
    assert set(entry['seconds']) == {'ours'} and 'the plain formula holds' in entry['not_run']
    assert 'and was not run' in capsys.readouterr().out


@pytest.mark.parametrize(
    'words, message',
    [
        ([], 'configs: missing; expected configs, --setting or --losses'),
        (['--methods', 'fgd'], '--methods: found without --setting'),
        (['--setting', SETTING, '--cfg-options', 'a=1'], '--cfg-options: found with --setting; expected configs'),
        (['x.py', '--cfg-options', 'a'], "--cfg-options: found 'a'; expected KEY=VALUE"),
        (['--losses', 'nst', '--autocast', 'bf16'], '--autocast: found with --losses'),
        (['--losses', 'nst', '--plot', 'x.png'], '--plot: nothing to draw'),
        (['--batch', '0'], '--batch: found 0; expected 1 or more'),
        (['--rounds', '0'], '--rounds: found 0; expected 1 or more'),
        (['--boxes', '-1'], '--boxes: found -1; expected 0 or more'),
        (['--size', '64', '0'], '--size: found 64 0; expected two numbers'),
        (['x.py', '--plot', 'x.foo'], "--plot: found 'x.foo'; expected a file that ends in .*png"),
        (['--report', 'none.json'], "--report: there is no file 'none.json'"),
        (['x.py', '--losses', 'nst', '--report', 'none.json'], '--report: found with configs, --losses; expected'),
        (['--setting', 'synthetic_retna'], "--setting: found 'synthetic_retna'; .*Nearest: 'synthetic_retina'"),
        (['--losses', 'NTTLoss'], "--losses: no formula for 'NTTLoss'; .*Nearest: 'nst'"),
        (['--losses', 'ntt'], "--losses: no formula for 'ntt'; .*Nearest: 'nst'"),
    ],
)
def test_errors_of_the_command_line(tool, words, message):
    with pytest.raises(ConfigError, match=message):
        tool['main']([*words, '--device', 'cpu'])


@pytest.mark.parametrize('name', ['synthetic_retina', 'synthetic_retina.py', SETTING])
def test_a_setting_by_name(tool, name):
    assert tool['setting_path'](name) == Path(SETTING)


def test_losses_by_name(tool):
    assert tool['loss_names'](['CWDLoss', 'kd_det.NSTLoss', 'RKD_angle', 'cwd']) == ['cwd', 'nst', 'rkd_angle']


def test_a_precision_that_is_none(tool, capsys):
    with pytest.raises(SystemExit):
        tool['parse'](['x.py', '--precisions', 'fp8'])
    assert 'invalid choice' in capsys.readouterr().err


def test_mmrazor_reads_as_many_levels_as_there_are(data):
    cfg = dict(
        type='kd_det.DistillDetector', student=retina(), teacher=dict(config=retina(), checkpoint=None),
        distill=dict(pkd=dict(student='neck', teacher='neck', loss=dict(type='kd_det.PKDLoss'))),
    )  # fmt: skip
    steps = Steps(Job('pkd', cfg, 'pkd'), data, ['fp32'])
    steps.try_mmrazor()
    assert steps.failed == {}
    assert [call for call in steps.calls if call.startswith('mmrazor')] == [f'mmrazor {kind}' for kind in KINDS]


@pytest.mark.parametrize('when', ['_razor', '_step'])
def test_a_job_goes_on_without_mmrazor(tool, data, capsys, monkeypatch, when):
    real = getattr(Steps, when)

    def fail(self, given, *rest):
        if when == '_razor' or hasattr(given, 'distiller'):
            raise RuntimeError('no such thing\nat all')
        return real(self, given, *rest)

    monkeypatch.setattr(Steps, when, fail)
    args = tool['parse'](['--rounds', '1', '--warmup', '0'])
    args.data, args.device = data, 'cpu'
    found = tool['time_job'](Job('cwd', model_of('cwd'), 'cwd'), args)
    assert set(found['to_floor']) == {'kd_det auto'} and 'to_mmrazor' not in found
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f'mmrazor {kind}: left out for cwd, RuntimeError: no such thing' for kind in KINDS]


@pytest.mark.parametrize('content', ['no JSON', '[]', '{"steps": {}}'])
def test_a_report_of_another_file(tool, tmp_path, content):
    path = tmp_path / 'x.json'
    path.write_text(content)
    with pytest.raises(ConfigError, match='--report: .*x.json.* holds no results of this tool'):
        tool['main'](['--report', str(path)])


def test_two_stage_detectors_are_timed_too(data):
    cfg = dict(
        type='kd_det.DistillDetector', student=faster(), teacher=dict(config=faster(), checkpoint=None),
        distill=dict(pkd=dict(student='neck', teacher='neck', loss=dict(type='kd_det.PKDLoss'))),
    )  # fmt: skip
    steps = Steps(Job('pkd', cfg), data, kinds=())
    for call in steps.calls.values():
        call()
