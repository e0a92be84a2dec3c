"""The demo from end to end at toy size, and what it refuses."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config

import kd_det  # noqa: F401
from kd_det.bench.display import Display
from kd_det.bench.part import METRICS
from kd_det.datasets import SyntheticSpec
from kd_det.demo import DemoSettings, run_demo
from kd_det.demo.run import available_methods
from kd_det.errors import ConfigError
from kd_det.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs' / 'demo'


def settings(folder: Path, **kwargs) -> DemoSettings:
    toy = dict(
        configs=CONFIGS,
        epochs=1,
        data=SyntheticSpec(train=8, val=3, image_size=64),
        data_dir=folder / 'data',
        work_dir=folder / 'work',
        command='toy',
    )
    return DemoSettings(**{**toy, **kwargs})


def run(folder: Path, **kwargs) -> tuple[dict, str]:
    stream = io.StringIO()
    return run_demo(settings(folder, **kwargs), Display(stream)), stream.getvalue()


@pytest.fixture(scope='module')
def demo(tmp_path_factory) -> tuple[Path, dict, str]:
    folder = tmp_path_factory.mktemp('demo')
    return folder, *run(folder)


@pytest.mark.slow
def test_files_and_figures(demo):
    folder, results, output = demo
    assert json.loads((folder / 'work' / 'results.json').read_text()) == json.loads(json.dumps(results))
    assert [(r['name'], r['seed'], r['reused']) for r in results['runs']] == [
        ('teacher', 0, False),
        ('plain', 0, False),
        ('fgd', 0, False),
    ]
    for record in results['runs']:
        assert set(record['metrics']) == set(METRICS)
        assert all(-1 <= value <= 1 for value in record['metrics'].values())
        assert record['steps'] == 1 and record['parameters'] > 1e5 and record['flops'] > 1e6
        assert record['train_seconds'] > 0 and record['curve']['epoch'] == [1] == record['curve']['val_epoch']
    teacher, plain, fgd = results['runs']
    assert plain['parameters'] == fgd['parameters'] < teacher['parameters']
    assert plain['flops'] == fgd['flops'] < teacher['flops']
    for name in ('curves.png', 'pictures.png'):
        assert cv2.imread(str(folder / 'work' / name)).shape[1] > 500
    assert {'torch', 'mmdet', 'kd_det'} <= set(results['versions']) and results['hardware']['cores'] >= 1
    for path in ('curves.png', 'pictures.png', 'results.json', 'fgd_student_seed0.pth'):
        assert str(folder / 'work' / path) in output
    assert re.search(r'^FGD student +', output, re.M)


@pytest.mark.slow
def test_plain_and_distilled_start_equal_and_see_the_same(demo):
    _, results, _ = demo
    teacher, plain, fgd = results['runs']
    assert plain['initial_weights'] == fgd['initial_weights'] != teacher['initial_weights']
    assert plain['data'] == fgd['data'] and plain['steps'] == fgd['steps']
    # the first step is taken on equal weights, so the detection losses of the only epoch are equal, too
    assert plain['curve']['loss'] == pytest.approx(fgd['curve']['loss'], rel=1e-5)
    assert plain['curve']['distill_loss'] == [0] and fgd['curve']['distill_loss'][0] > 0


@pytest.mark.slow
def test_every_method_has_a_demo(demo):
    folder, first, _ = demo
    methods = available_methods(CONFIGS)
    assert {'cwd', 'fgd', 'mgd', 'pkd'} <= set(methods)
    results, _ = run(folder, methods=tuple(methods))
    assert [r['name'] for r in results['runs']] == ['teacher', 'plain', *methods]
    assert {r['name'] for r in results['runs'] if r['reused']} == {'teacher', 'plain', 'fgd'}
    for record in results['runs'][2:]:
        assert record['curve']['distill_loss'][0] > 0
        assert record['curve']['loss'] == pytest.approx(first['runs'][1]['curve']['loss'], rel=1e-5)
        assert (folder / 'work' / f'{record["name"]}_student_seed0.pth').is_file()


@pytest.mark.slow
def test_student_checkpoint_is_plain_mmdet(demo):
    folder, results, _ = demo
    cfg = Config.fromfile(folder / 'work' / 'fgd_student_seed0.py')
    assert cfg.model.type == 'RetinaNet' and 'kd_det' not in str(cfg.val_dataloader)
    state = torch.load(folder / 'work' / 'fgd_student_seed0.pth', weights_only=True)['state_dict']
    model = MODELS.build(cfg.model)
    model.load_state_dict(state, strict=True)
    assert sum(p.numel() for p in model.parameters()) == results['runs'][2]['parameters']


@pytest.mark.slow
def test_finished_parts_are_reused_only_with_equal_settings(demo):
    folder, first, _ = demo
    again, output = run(folder)
    assert all(record['reused'] for record in again['runs']) and output.count('reused from') == 3
    assert [r['metrics'] for r in again['runs']] == [r['metrics'] for r in first['runs']]
    # a part without its last file counts as unfinished, and is trained to the same figures
    (done,) = (folder / 'work' / 'parts').glob('plain-*/done.json')
    done.unlink()
    third, _ = run(folder)
    assert [r['reused'] for r in third['runs']] == [True, False, True]
    assert third['runs'][1]['metrics'] == first['runs'][1]['metrics']
    assert third['runs'][1]['curve'] == first['runs'][1]['curve']


def test_unknown_method_and_wrong_numbers_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--method is 'fdg', expected one of .*fgd.* Nearest: 'fgd'"):
        run_demo(settings(tmp_path, methods=('fdg',)))
    with pytest.raises(ConfigError, match='--epochs is 0'):
        run_demo(settings(tmp_path, epochs=0))
    with pytest.raises(ConfigError, match=r'--seeds is \[1, 1\]'):
        run_demo(settings(tmp_path, seeds=(1, 1)))
    assert list(tmp_path.iterdir()) == []


def test_work_dir_that_cannot_be_is_named(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match='work_dir: .*file.work.*--work-dir'):
        run_demo(settings(tmp_path, work_dir=tmp_path / 'file' / 'work'))


def test_command_line_reports_errors_in_one_line(tmp_path):
    command = [sys.executable, str(ROOT / 'tools' / 'demo.py'), '--method', 'fdg', '--work-dir', str(tmp_path / 'w')]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "Nearest: 'fgd'" in done.stderr and 'Traceback' not in done.stderr
    assert list(tmp_path.iterdir()) == []
