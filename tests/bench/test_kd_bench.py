"""``tools/kd_bench.py`` from end to end on a toy: fair, resumable, safe to kill, and plain about what failed."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from loaded_tool import tool
from toy_bench import IMAGES, ROOT, write_pair, write_setting

from kd_det.bench.ledger import read_records
from kd_det.bench.part import weights_digest
from kd_det.engine import guarded

METHODS = ['pkd', 'fitnet']
FULL = dict(
    methods=METHODS,
    seeds=[0],
    tune=dict(factors=[1.0, 4.0], holdout=0.25),
    longer=2,
    self_distilled='pkd',
    random_teacher=['pkd'],
    shuffled_teacher=['pkd'],
)


class Toy:
    """A folder with a setting, its data and its work folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / 'work'
        self.results = self.work / 'results.jsonl'

    def write(self, **bench) -> None:
        write_setting(self.folder, data_root=str(self.folder / 'data'), synthetic=IMAGES, **bench)

    def copy(self, folder: Path) -> Toy:
        """The same files elsewhere, finished runs included."""
        shutil.copytree(self.folder, folder)
        other = Toy(folder)
        setting = folder / 'toy.py'
        setting.write_text(setting.read_text().replace(str(self.folder), str(folder)))
        return other

    def arguments(self, *more: str) -> list[str]:
        return [str(self.folder / 'toy.py'), '--work-dir', str(self.work), '--threads', '1', *more]

    def run(self, *more: str) -> int:
        """Exit status of the command, run in this process."""
        try:
            return guarded(tool('kd_bench').main, self.arguments(*more))
        except SystemExit as stop:  # of the words of the command
            return stop.code

    def records(self) -> dict[str, dict]:
        return {record['cell']: record for record in read_records(self.results)}

    def weights(self, cell: str) -> Path:
        digest = self.records()[cell]['digest'][:10]
        (found,) = (self.work / 'toy' / 'cells').glob(f'*-{digest}/*.pth')
        return found


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)['state_dict']


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Toy:
    """A finished benchmark; tests that run more copy it."""
    toy = Toy(tmp_path_factory.mktemp('bench') / 'toy')
    toy.write(**FULL)
    assert toy.run('--jobs', '2') == 0
    return toy


@pytest.fixture
def toy(whole, tmp_path) -> Toy:
    return whole.copy(tmp_path / 'toy')


# --- a whole run ------------------------------------------------------------------------------------------------------


def test_every_run_is_recorded(whole):
    records = whole.records()
    expected = {'teacher/trained', 'teacher/shuffled', 'teacher/tune', 'tune/plain'}
    expected |= {f'tune/{method}/x{factor}' for method in METHODS for factor in (1, 4)}
    expected |= {f'{role}/seed0' for role in ('plain', 'plain_longer')}
    expected |= {f'{method}/x1/seed0' for method in METHODS} | {f'timing/{method}' for method in METHODS}
    starts = ('random_teacher/pkd/x', 'shuffled_teacher/pkd/x', 'self_distilled/pkd/x')
    others = {name for name in records if name.startswith(starts)}
    assert expected <= records.keys() and len(others) == 3
    assert all(re.fullmatch(r'(pkd|fitnet)/x4/seed0', name) for name in records.keys() - expected - others)
    for record in records.values():
        assert record['setting'] == 'toy' and not record['diverged']
        command = f'python tools/kd_bench.py {whole.folder}/toy.py --only {record["cell"]} --threads 1'
        assert record['repeat'] == command
        assert record['versions']['torch'].split('+')[0] == torch.__version__.split('+')[0]
        assert record['hardware']['threads'] == 1 and record['device'] == 'cpu'
        assert record['pair']['train_images'] == 24 and record['pair']['val_images'] == 8
        if record['kind'] == 'timing':
            assert record['metrics'] == {} and record['step_ratio'] > 1 and record['step_seconds']['plain'] > 0
        else:
            assert 0 <= record['metrics']['mAP'] <= 1 and record['parameters'] > 0
    assert {name: records[name]['steps'] for name in ('plain/seed0', 'plain_longer/seed0', 'tune/plain')} == {
        'plain/seed0': 3, 'plain_longer/seed0': 6, 'tune/plain': 3
    }  # fmt: skip
    assert records['tune/pkd/x4']['distill']['pkd']['weight'] == 4 * records['tune/pkd/x1']['distill']['pkd']['weight']


def test_runs_of_a_seed_start_from_equal_weights_and_see_equal_data(whole):
    students = [r for r in whole.records().values() if r['kind'] == 'student']
    assert len(students) >= 7 and len({r['initial_weights'] for r in students}) == 1
    assert len({(r['data'], r['steps']) for r in students if r['role'] != 'plain_longer'}) == 1
    tunes = [r for r in whole.records().values() if r['kind'] == 'tune']
    assert len(tunes) == 5 and len({(r['initial_weights'], r['data'], r['steps']) for r in tunes}) == 1
    assert tunes[0]['initial_weights'] != students[0]['initial_weights'] and tunes[0]['data'] != students[0]['data']


def test_teachers_and_methods_make_a_difference(whole):
    records = whole.records()
    curves = {}
    for name, record in records.items():
        if record['kind'] == 'student':
            curves[name] = (*record['curve']['loss'], *record['curve']['distill_loss'])
    assert len(set(curves.values())) == len(curves) >= 7
    for name, record in records.items():
        if record['kind'] == 'timing':
            continue
        assert (record['curve']['distill_loss'][0] > 0) == (record['distill'] is not None), name
    finals = {weights_digest(state(whole.weights(name))) for name in ('plain/seed0', 'pkd/x1/seed0', 'fitnet/x1/seed0')}
    assert len(finals) == 3
    assert not any('teacher' in name for name in state(whole.weights('pkd/x1/seed0')))


def test_the_holdout_is_no_validation_image(whole):
    (folder,) = (whole.work / 'toy' / 'split').glob('0-*')
    stays, held = (json.loads((folder / f'{name}-train.json').read_text())['images'] for name in ('stays', 'holdout'))
    ids = [{image['id'] for image in part} for part in (stays, held)]
    assert (len(stays), len(held)) == (18, 6) and not ids[0] & ids[1]
    records = whole.records()
    assert {r['split'] for r in records.values() if r['kind'] == 'tune'} == {'holdout'}
    assert {r['split'] for r in records.values() if r['kind'] == 'student'} == {'val'}


def test_a_second_call_runs_nothing(whole, capsys):
    before, stamp = whole.results.read_bytes(), whole.results.stat().st_mtime_ns
    assert whole.run() == 0
    out = capsys.readouterr().out
    assert f'{len(whole.records())} finished already, in {whole.results}: nothing to run.' in out
    assert '--work-dir NEW' in out and 'running' not in out and 'checking' not in out
    assert (whole.results.read_bytes(), whole.results.stat().st_mtime_ns) == (before, stamp)
    assert whole.run('--dry-run') == 0
    assert f'{len(whole.records())} finished, 0 to run' in capsys.readouterr().out


def test_a_finished_run_is_repeated_elsewhere_and_never_overwritten(tmp_path, capsys):
    toy = Toy(tmp_path / 'toy')
    toy.write()
    other = dict(setting='other', cell='plain/seed9', digest='x', kind='student', role='plain', steps=0, batch_size=8)
    toy.work.mkdir(parents=True)
    toy.results.write_text(json.dumps(other) + '\n')
    assert toy.run('--only', 'plain') == 0
    assert not (toy.work / 'other').exists()  # the report of a setting that is not named
    (folder,) = (toy.work / 'toy' / 'cells').glob('plain-*/')
    assert f'running toy: plain/seed0, log {folder}/console.log' in capsys.readouterr().out
    old = toy.records()['plain/seed0']
    assert json.loads((folder / 'record.json').read_text()) == old and (folder / 'console.log').is_file()
    assert old['wall_seconds'] > old['train_seconds'] > 0
    before, final = toy.results.read_bytes(), weights_digest(state(toy.weights('plain/seed0')))

    words = old['repeat'].split()[2:]
    assert guarded(tool('kd_bench').main, [*words, '--work-dir', str(toy.work)]) == 0
    out = capsys.readouterr().out
    assert f'1 finished already, in {toy.results}: nothing to run.' in out and '--work-dir NEW' in out
    assert guarded(tool('kd_bench').main, [*words, '--work-dir', str(tmp_path / 'again')]) == 0
    (new,) = read_records(tmp_path / 'again' / 'results.jsonl')
    measured = ('metrics', 'curve', 'initial_weights', 'data', 'digest', 'weights')
    assert {k: new[k] for k in measured} == {k: old[k] for k in measured}
    assert toy.results.read_bytes() == before

    capsys.readouterr()
    for number in (1, 2):  # other results in the same work folder
        assert toy.run('--only', 'plain', '--results', str(tmp_path / f'{number}.jsonl')) == 0
        kept = folder.with_name(f'{folder.name}.{number}')
        assert f'toy: plain/seed0: what an earlier run left is kept in {kept}' in capsys.readouterr().out
        assert [weights_digest(state(path)) for path in kept.glob('*.pth')] == [final]


def test_a_run_whose_record_is_gone_is_repeated_with_equal_outcome(toy, capsys):
    old, final = toy.records(), weights_digest(state(toy.weights('pkd/x1/seed0')))
    folder = toy.weights('pkd/x1/seed0').parent
    kept = [line for line in toy.results.read_text().splitlines() if '"cell": "pkd/x1/seed0"' not in line]
    toy.results.write_text('\n'.join(kept) + '\n' + '{"setting": "toy", "ce')  # and a line that a kill cut off
    assert toy.run() == 0
    new = toy.records()
    assert new.keys() == old.keys()
    assert toy.results.read_text().splitlines()[:-1] == kept  # nothing else ran
    measured = ('metrics', 'curve', 'initial_weights', 'data', 'digest', 'parameters', 'flops')
    assert {k: new['pkd/x1/seed0'][k] for k in measured} == {k: old['pkd/x1/seed0'][k] for k in measured}
    assert weights_digest(state(toy.weights('pkd/x1/seed0'))) == final
    kept = folder.with_name(f'{folder.name}.1')  # the run before is not overwritten
    assert f'toy: pkd/x1/seed0: what an earlier run left is kept in {kept}' in capsys.readouterr().out
    assert weights_digest(state(next(kept.glob('*.pth')))) == final


def test_weights_that_are_gone_are_trained_again_when_a_run_needs_them(toy, capsys):
    toy.weights('teacher/trained').unlink()
    assert toy.run('--dry-run') == 0
    assert '0 to run' in capsys.readouterr().out
    toy.write(**{**FULL, 'seeds': [0, 1]})
    assert toy.run('--only', 'fitnet/x1', '--dry-run') == 0
    out = capsys.readouterr().out
    assert 'toy: teacher/trained' in out and 'toy: fitnet/x1/seed1' in out and '1 finished, 2 to run' in out


# --- what fails -------------------------------------------------------------------------------------------------------


def test_what_fails_fails_alone(toy, capsys, monkeypatch):
    """A tap that does not exist, a first stage that cannot start, a loss of infinity, and two that are all right."""
    modules = toy.folder / 'modules'
    modules.mkdir()
    (modules / 'toy_own_loss.py').write_text(
        'from kd_det.losses import PKDLoss\nfrom kd_det.registry import MODELS\n\n\n'
        '@MODELS.register_module()\nclass ToyOwnLoss(PKDLoss):\n    pass\n'
    )
    monkeypatch.syspath_prepend(str(modules))
    text = "distill = dict({0}=dict({1}teacher='{2}', loss=dict(type='{3}')))\n"
    (toy.folder / 'own.py').write_text(
        "custom_imports = dict(imports=['toy_own_loss'])\n"
        + text.format('own', "student='neck', ", 'neck', 'kd_det.ToyOwnLoss')
    )
    paraphraser = "kd_det.FTLoss', stage='paraphraser"
    (toy.folder / 'bad_stage.py').write_text(text.format('ft', '', 'nowhere', paraphraser))
    methods = dict(
        bad_tap=dict(fragment='pkd', change=dict(student='nowhere')),
        bad_stage=dict(fragment='ft', first_stage='bad_stage.py'),
        infinite=dict(fragment='pkd', change=dict(weight=1e300)),
        ft={},
        own=dict(fragment='own.py'),
    )
    toy.write(methods=methods, seeds=[0])
    before = toy.records().keys()
    assert toy.run('--no-check') == 2
    out, err = capsys.readouterr()
    assert 'checking' not in out
    assert re.search(r'FAILED toy: bad_tap/x1/seed0: .*nowhere.* \(see .*console\.log\)', out)
    assert re.search(r'FAILED toy: first_stage/bad_stage: .*nowhere', out)
    assert 'FAILED toy: bad_stage/x1/seed0' not in out  # it was not tried
    for name in ('bad_tap/x1/seed0', 'first_stage/bad_stage', 'bad_stage/x1/seed0'):
        assert f'toy: {name}' in err
    assert '5 runs failed, or need one that did' in err and err.count('\n') == 1
    new = {name: record for name, record in toy.records().items() if name not in before}
    right = {'infinite/x1/seed0', 'ft/x1/seed0', 'first_stage/ft', 'own/x1/seed0'}
    assert new.keys() - {'timing/infinite'} == right | {'timing/ft', 'timing/own'}
    assert new['infinite/x1/seed0']['diverged'] and new['infinite/x1/seed0']['metrics']['mAP'] == 0.0
    assert not new['own/x1/seed0']['diverged'] and new['own/x1/seed0']['curve']['distill_loss'][0] > 0
    stage = toy.records()['first_stage/ft']
    assert stage['metrics'] == {} and stage['steps'] == 3 and new['ft/x1/seed0']['curve']['distill_loss'][0] > 0


def test_methods_that_do_not_fit_are_told_before_anything_runs(tmp_path, capsys):
    text = "distill = dict(ft=dict(teacher='nowhere', loss=dict(type='kd_det.FTLoss', stage='paraphraser')))\n"
    toy = Toy(tmp_path / 'toy')
    methods = dict(
        bad_tap=dict(fragment='pkd', change=dict(student='nowhere')),
        crosskd={},  # after the third convolution of a tower; these have two
        bad_stage=dict(fragment='ft', first_stage='bad_stage.py'),
        ft={},
    )
    toy.folder.mkdir()
    (toy.folder / 'bad_stage.py').write_text(text)
    toy.write(methods=methods)
    for word in ('--dry-run', '--jobs=1'):
        assert toy.run(word) == 2
        out, err = capsys.readouterr()
        assert '3 errors:' in err
        for line in (r'bad_tap: .*nowhere', r'crosskd: .*2 convolutions', r'bad_stage: .*nowhere'):
            assert re.search(f'^- toy: {line}', err, re.MULTILINE), err
        assert '--no-check' in err and 'toy: ft: ' not in err and 'running' not in out and not toy.results.exists()
        (checked,) = re.findall(r'^\w+: checking whether (.*) fit', out, re.MULTILINE)
        assert set(checked.split(', ')) == {'bad_tap', 'crosskd', 'bad_stage', 'ft'}
        assert ('toy: bad_tap/x1/seed0  (about' in out) == (word == '--dry-run')
    assert toy.run('--dry-run', '--only', 'ft', 'plain') == 0  # nothing else is checked
    assert 'checking whether ft fit' in capsys.readouterr().out


def test_without_a_teacher_only_the_plain_student_is_left(tmp_path, capsys):
    toy = Toy(tmp_path / 'toy')
    toy.write(seeds=[0])
    path = toy.folder / 'teacher.py'
    path.write_text(path.read_text().replace("'base_channels': 16", "'base_channels': 16, 'depth': 19"))
    path = toy.folder / 'student.py'  # its images come from processes of their own
    path.write_text(path.read_text().replace("'batch_size': 8", "'batch_size': 8, 'num_workers': 1"))
    assert toy.run('--dry-run') == 2
    assert re.search('^error: toy: pkd: .*depth 19', capsys.readouterr().err)
    assert toy.run('--no-check') == 2
    out, err = capsys.readouterr()
    assert re.search('FAILED toy: teacher/trained: .*depth 19', out) and 'FAILED toy: pkd' not in out
    assert '3 runs failed' in err and 'toy: pkd/x1/seed0' in err
    assert list(toy.records()) == ['plain/seed0']


def test_a_student_may_count_iterations(tmp_path):
    toy = Toy(tmp_path / 'toy')
    toy.write(seeds=[0])
    path = toy.folder / 'student.py'
    text = path.read_text()
    text = text[: text.index('train_cfg')] + (
        "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=4, val_interval=2)\n"
        "train_dataloader = dict(batch_size=8, sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True))\n"
        "param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[3], gamma=0.1)]\n"
    )
    path.write_text(text)
    assert toy.run('--only', 'plain', '--weights', 'published') == 0
    (record,) = toy.records().values()
    assert record['steps'] == record['epochs'] == 4 and len(record['curve']['mAP']) == 1
    assert record['metrics']['mAP'] >= 0 and record['train_seconds'] > 0


# --- what to run ------------------------------------------------------------------------------------------------------


def listed(output: str) -> list[str]:
    return re.findall(r'^\w+: (\S+)  \(about', output, re.MULTILINE)


def test_dry_run_only_and_methods_choose(tmp_path, capsys):
    toy = Toy(tmp_path / 'toy')
    toy.write(methods=['pkd', 'fitnet'], seeds=[0], longer=2, random_teacher=['fitnet'])
    assert toy.run('--dry-run') == 0
    names = ['teacher/trained', 'plain/seed0', 'pkd/x1/seed0', 'fitnet/x1/seed0', 'plain_longer/seed0']
    names += ['random_teacher/fitnet/x1/seed0', 'timing/pkd', 'timing/fitnet']
    out = capsys.readouterr().out
    assert listed(out) == names and '0 finished, 8 to run' in out
    assert not toy.results.exists() and not list(toy.work.rglob('*.pth'))
    assert toy.run('--dry-run', '--methods', 'pkd', 'mgd', '--seeds', '3') == 0
    expected = {'teacher/trained', 'plain/seed3', 'plain_longer/seed3', 'pkd/x1/seed3', 'mgd/x1/seed3'}
    assert set(listed(capsys.readouterr().out)) == expected | {'timing/pkd', 'timing/mgd'}
    added = ('--dry-run', '--no-check', '--methods', 'pkd', 'mgd', '--self-distilled', 'pkd', '--random-teacher')
    assert toy.run(*added, 'mgd') == 0  # a control of a method that --methods adds
    own = {'self_distilled/pkd/x1/seed0', 'random_teacher/mgd/x1/seed0'}
    assert own <= set(listed(capsys.readouterr().out))
    assert toy.run(*added, 'fitnet') == 2
    assert "random_teacher: 'fitnet' is none of the methods of this setting" in capsys.readouterr().err
    assert toy.run('--dry-run', '--only', 'pkd', 'plain/') == 0
    assert set(listed(capsys.readouterr().out)) == {'teacher/trained', 'plain/seed0', 'pkd/x1/seed0'}
    with_kd = ('--dry-run', '--no-check', '--methods', 'pkd', '--only')
    assert toy.run(*with_kd, 'kd') == 2
    assert "--only: 'kd': 'kd' is not among --methods, or those of the setting: pkd." in capsys.readouterr().err
    assert toy.run(*with_kd, 'pkd+kd/x1') == 2
    assert "'pkd+kd' is not among --methods" in capsys.readouterr().err
    assert toy.run(*with_kd, 'random_teacher/fitnet') == 2
    assert "'fitnet' is not among --methods" in capsys.readouterr().err
    assert toy.run('--dry-run', '--only', 'plain_longer') == 0
    assert listed(capsys.readouterr().out) == ['plain_longer/seed0']
    assert toy.run('--dry-run', '--tune', '1', '2', '--weights', 'tuned', '--methods', 'pkd') == 0
    expected = {'teacher/trained', 'teacher/tune', 'plain/seed0', 'plain_longer/seed0', 'tune/plain'}
    assert set(listed(capsys.readouterr().out)) == {*expected, 'tune/pkd/x1', 'tune/pkd/x2', 'timing/pkd'}
    assert toy.run('--dry-run', '--tune', '1', '2', '--only', 'pkd/x2/seed0') == 0  # a name that tuning may give
    assert listed(capsys.readouterr().out) == ['teacher/trained', 'pkd/x2/seed0']


def test_what_cannot_be_compared_is_told_before_anything_runs(tmp_path, capsys):
    toy = Toy(tmp_path / 'toy')
    toy.write()
    with open(toy.folder / 'student.py', 'a') as file:
        file.write("val_evaluator = dict(metric='proposal')\ntest_evaluator = val_evaluator\n")
        file.write("val_dataloader = dict(dataset=dict(ann_file='annotations/train.json'))\n")
    assert toy.run('--dry-run') == 2
    err = capsys.readouterr().err
    assert 'student: val_evaluator: found CocoMetric of proposal, expected' in err and 'teacher: val' not in err
    assert 'teacher and student are measured on different annotation files' in err
    assert "the teacher learns from the images that the student's val_dataloader measures on" in err


@pytest.mark.parametrize(
    'more, message',
    [
        (['--only', 'pdk'], "--only: no cell is called 'pdk' by now. Nearest: 'pkd"),
        (['--methods', 'pdk'], "methods: no fragment 'pdk'"),
        (['--tune', '2', '3'], 'tune.factors: found [2.0, 3.0], expected 1'),
        (['--seeds', '1', '1'], 'seeds: found [1, 1]'),
        (['--jobs', '0'], '--jobs: found 0, expected at least 1.'),
        (['--gpus', '0'], '--gpus: found 0, but torch sees no GPU'),
        (['--teacher', 'x.py'], 'found files and --teacher or --student'),
        (['--teacher-checkpoint', 'absent.pth'], "bench.teacher_checkpoint: 'absent.pth' does not exist"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, capsys, more, message):
    toy = Toy(tmp_path / 'toy')
    toy.write()
    assert toy.run('--dry-run', *more) == 2
    err = capsys.readouterr().err
    assert message in err and err.count('\n') == 1 and not toy.results.exists()


def test_nothing_to_compare_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, message in (
        ([], 'settings: missing; expected files, or --teacher, --student and --methods.'),
        (['--teacher', 'a.py', '--student', 'b.py'], '--methods: missing; expected names of files in'),
        (['--methods', 'fgd'], '--teacher and --student: missing; expected beside --methods.'),
        (['a.py', '--results', 'b', 'c'], '--results: found 2 files, expected one to run with.'),
    ):
        with pytest.raises(SystemExit) as stop:
            tool('kd_bench').main(words)
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.startswith(f'error: {message}') and err.count('\n') == 1
    assert guarded(tool('kd_bench').main, ['--report']) == 2
    assert "results.jsonl' cannot be read" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('tune', [None, dict(factors=[1.0])])
def test_data_that_are_elsewhere_are_told_with_the_option_that_names_them(tmp_path, capsys, tune):
    toy = Toy(tmp_path / 'toy')
    write_setting(toy.folder, data_root=str(tmp_path / 'nowhere'), tune=tune)
    assert toy.run('--dry-run') == 2
    err = capsys.readouterr().err
    assert str(tmp_path / 'nowhere') in err and '--data-root DIR names its folder' in err


def timed(cell: str, seconds: float, wall: float, **more) -> dict:
    """A run of another digest that tells only times: 10 steps of 8 images."""
    both = dict(setting='toy', cell=cell, digest='old', kind='student', steps=10, batch_size=8, diverged=False)
    return {**both, 'train_seconds': seconds, 'wall_seconds': wall, **more}


def test_a_dry_run_tells_times_from_runs_that_finished(tmp_path, capsys):
    toy = Toy(tmp_path / 'toy')
    toy.write(methods=['pkd', 'fitnet'], seeds=[0])

    def times(*more) -> tuple[dict[str, str], str]:
        assert toy.run('--dry-run', '--no-check', '--weights', 'published', *more) == 0
        out = capsys.readouterr().out
        return dict(re.findall(r'^\w+: (\S+)  \(about (\S+)\)', out, re.MULTILINE)), out.splitlines()[-1]

    each, last = times('--jobs', '2')
    assert each['plain/seed0'] == each['pkd/x1/seed0'] == '0:00:10'  # the start of a process
    assert re.fullmatch(
        r'0 finished, 6 to run, about 0:00:\d\d in all with --jobs 2 \(a guess, perhaps far off: no run of toy .*\)',
        last,
    )
    # 100 s for each of 24 images, distilled twice as much, and 3600 s besides
    toy.work.mkdir(exist_ok=True)
    lines = [timed('plain/seed0', 8000, 11600)]
    toy.results.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    each, last = times()
    assert (each['plain/seed0'], each['pkd/x1/seed0']) == ('1:40:00', '2:20:00') and 'guess' not in last
    lines.append(timed('pkd/x1/seed0', 24000, 27600, method='pkd', distill=dict(pkd={})))
    lines.append(timed('mgd/x1/seed0', 40000, 43600, method='mgd', distill=dict(mgd={})))
    toy.results.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    each, _ = times('--only', 'pkd', 'fitnet')
    assert each['pkd/x1/seed0'] == '3:00:00'  # its own
    assert each['fitnet/x1/seed0'] == '3:40:00'  # the median of distilled ones
    _, last = times('--only', 'pkd', 'fitnet', '--jobs', '2')
    assert re.search(r'3 to run, about 4:10:00 in all', last)  # the teacher's 1:40 too


def test_two_runs_in_one_folder_are_refused(tmp_path, capsys):
    toy = Toy(tmp_path / 'toy')
    toy.write()
    toy.work.mkdir()
    with open(toy.work / '.lock', 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert toy.run('--dry-run') == 2
    assert 'another run works in' in capsys.readouterr().err
    assert toy.run('--dry-run') == 0  # the lock went with the file


def test_without_a_setting_and_with_weights_that_are_given(whole, tmp_path, monkeypatch, capsys):
    """--teacher, --student, --teacher-checkpoint and --inherit; the given teacher is measured, not trained."""
    monkeypatch.chdir(tmp_path)
    given, work = whole.weights('teacher/trained'), tmp_path / 'own'
    words = ['--teacher', f'{whole.folder}/teacher.py', '--student', f'{whole.folder}/student.py']
    words += ['--teacher-checkpoint', str(given), '--methods', 'pkd', '--seeds', '5']
    words += ['--inherit', 'neck', '--data-root', f'{whole.folder}/data']
    more = ['--weights', 'published', '--work-dir', str(work), '--threads', '1']
    assert guarded(tool('kd_bench').main, [*words, *more]) == 0
    records = {r['cell']: r for r in read_records(work / 'results.jsonl')}
    own = 'self_distilled/pkd/x1/seed5'
    assert records.keys() == {'teacher/trained', 'plain/seed5', 'pkd/x1/seed5', 'timing/pkd', own}
    teacher, plain, distilled = (records[name] for name in ('teacher/trained', 'plain/seed5', 'pkd/x1/seed5'))
    assert teacher['steps'] == 0 and teacher['metrics'] == whole.records()['teacher/trained']['metrics']
    assert teacher['pair']['teacher_checkpoint'] == str(given)
    assert not list((work / 'own' / 'cells').glob('teacher*/*.pth'))
    assert plain['initial_weights'] == distilled['initial_weights'] and plain['data'] == distilled['data']
    assert plain['data'] != whole.records()['plain/seed0']['data']  # another seed, another order

    (path,) = (work / 'teacher_student').glob('initial-seed5-*.pth')
    start, theirs, other = state(path), state(given), state(next((whole.work / 'toy').glob('initial-seed0-*.pth')))
    neck = [name for name in start if name.startswith('neck.')]
    same = [name for name in neck if torch.equal(start[name], theirs[name])]
    fit = [name for name in neck if start[name].shape == theirs[name].shape]
    assert same == fit and 0 < len(fit) < len(neck)  # the lateral convolutions are of another width
    moved = [n for n in fit if not torch.equal(start[n], other[n])]
    assert any(name.startswith('neck.fpn_convs') for name in moved)
    head = 'bbox_head.cls_convs.0.conv.weight'
    assert start[head].shape == theirs[head].shape and not torch.equal(start[head], theirs[head])
    assert sorted(p.suffix for p in (work / 'teacher_student').glob('initial-*')) == ['.log', '.pth']

    capsys.readouterr()
    repeat = plain['repeat'].split()
    assert repeat[:2] == ['python', 'tools/kd_bench.py'] and repeat[-4:-2] == ['--only', 'plain/seed5']
    assert guarded(tool('kd_bench').main, [*repeat[2:], *more, '--dry-run']) == 0  # it means the same run
    assert '1 finished, 0 to run' in capsys.readouterr().out
    more += ['--dry-run', '--no-check', '--longer', '1.5', '--random-teacher', 'pkd', '--self-distilled', 'none']
    assert guarded(tool('kd_bench').main, [*words, *more]) == 0
    assert set(listed(capsys.readouterr().out)) == {'plain_longer/seed5', 'random_teacher/pkd/x1/seed5'}


# --- what stops it ----------------------------------------------------------------------------------------------------


def descendants(pid: int) -> set[int]:
    """Processes below one, from Linux."""
    parents = {}
    for path in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = path.read_text().rsplit(')', 1)[1].split()
        except OSError:
            continue
        if fields[0] != 'Z':
            parents[int(path.parent.name)] = int(fields[1])
    found, layer = set(), {pid}
    while layer:
        layer = {child for child, parent in parents.items() if parent in layer}
        found |= layer
    return found


def wait_for(what, seconds: float):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.05)
    return found


@pytest.mark.slow  # imports everything anew in a process of its own, and trains twenty epochs three times
@pytest.mark.skipif(not Path('/proc/self/stat').is_file(), reason='reads /proc')
@pytest.mark.parametrize('stop', [signal.SIGKILL, signal.SIGINT], ids=['SIGKILL', 'SIGINT'])
def test_a_stop_in_the_middle_leaves_readable_results_and_no_processes(tmp_path, stop):
    toy = Toy(tmp_path / 'toy')
    write_pair(toy.folder, epochs=20)
    toy.write(seeds=[0, 1])
    command = [sys.executable, ROOT / 'tools' / 'kd_bench.py', *toy.arguments('--only', 'plain')]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    with open(tmp_path / 'output', 'w') as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, cwd=tmp_path,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background ignore it
        )  # fmt: skip
        try:
            cells = toy.work / 'toy' / 'cells'
            wait_for(lambda: list(cells.glob('plain-seed1-*/console.log')), 240)
            time.sleep(0.5)
            workers = descendants(process.pid)
            assert workers and process.poll() is None
        finally:
            process.send_signal(stop)
            process.wait(30)
    assert process.returncode == (-signal.SIGKILL if stop == signal.SIGKILL else 130)
    alive = {pid for pid in workers if Path(f'/proc/{pid}').exists()}
    wait_for(lambda: not any(Path(f'/proc/{pid}/fd/0').exists() for pid in alive), 10)
    (first,) = toy.records().values()
    assert first['cell'] == 'plain/seed0' and first['steps'] == 60
    assert not list(cells.glob('plain-seed1-*/*.pth'))  # it was in the middle
    with open(toy.results, 'a') as file:
        file.write('{"setting": "toy", "cell": "pla')
    assert toy.run('--only', 'plain') == 0
    assert list(toy.records()) == ['plain/seed0', 'plain/seed1'] and toy.records()['plain/seed0'] == first
    assert toy.records()['plain/seed1']['steps'] == 60
