"""What a cell's process does before it trains: initial weights, those of a teacher among them, and own modules."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import pytest
import torch
from toy_bench import write_setting

from kd_det.bench import worker
from kd_det.bench.cells import Job
from kd_det.bench.part import Part, figures, initial_weights
from kd_det.bench.setting import Setting, load_setting
from kd_det.errors import CheckpointError, ConfigError, DataError


@pytest.fixture
def setting(tmp_path) -> Setting:
    return load_setting(write_setting(tmp_path))


@pytest.fixture
def trained(setting, tmp_path) -> Path:
    """Weights of a teacher."""
    path = tmp_path / 'teacher.pth'
    initial_weights(setting.config('teacher'), 9, path)
    return path


def job(setting: Setting, trained: Path, folder: Path, parts: tuple[str, ...] = ('neck',)) -> Job:
    cfg, start = setting.config('student'), folder / 'work' / 'initial.pth'
    part = Part('plain', 0, cfg, folder / 'work' / 'cell', 'digest', initial=start)
    return Job(part, make=[(cfg, 0, start)], inherit=(setting.config('teacher'), trained, parts))


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)['state_dict']


def test_parts_are_inherited_where_names_and_shapes_agree(setting, trained, tmp_path):
    one = job(setting, trained, tmp_path, ('neck', 'bbox_head.retina_cls'))
    worker._prepare(one)
    plain = tmp_path / 'plain.pth'
    initial_weights(setting.config('student'), 0, plain)
    got, theirs, own = state(one.part.initial), state(trained), state(plain)
    assert got.keys() == own.keys()
    for name, value in got.items():
        inherits = name.startswith(('neck.', 'bbox_head.retina_cls.')) and theirs[name].shape == value.shape
        assert torch.equal(value, theirs[name] if inherits else own[name]), name
    assert not torch.equal(got['bbox_head.retina_cls.weight'], own['bbox_head.retina_cls.weight'])
    assert "Inherited 'neck': " in one.part.initial.with_suffix('.log').read_text()


def test_weights_that_are_there_are_kept(setting, trained, tmp_path):
    one = job(setting, trained, tmp_path)
    worker._prepare(one)
    before = one.part.initial.stat().st_mtime_ns
    worker._prepare(job(setting, tmp_path / 'gone.pth', tmp_path))
    assert one.part.initial.stat().st_mtime_ns == before


def test_two_processes_may_make_the_same_file(setting, trained, tmp_path, monkeypatch):
    one, inherit, codes = job(setting, trained, tmp_path), worker.inherit_into, []

    def late(*args):
        """Another process makes all of it meanwhile."""
        if not codes:
            codes.append(None)
            process = multiprocessing.get_context('fork').Process(target=worker._prepare, args=(one,))
            process.start()
            process.join(60)
            codes[0] = process.exitcode
        inherit(*args)

    monkeypatch.setattr(worker, 'inherit_into', late)
    worker._prepare(one)
    assert codes == [0]
    assert sorted(path.name for path in one.part.initial.parent.iterdir()) == ['initial.log', 'initial.pth']
    assert torch.equal(
        state(one.part.initial)['neck.fpn_convs.0.conv.weight'], state(trained)['neck.fpn_convs.0.conv.weight']
    )


def test_what_cannot_be_inherited_is_named(setting, trained, tmp_path):
    with pytest.raises(ConfigError, match=r"bench\.inherit: 'nek': .*has no attribute `nek`"):
        worker._prepare(job(setting, trained, tmp_path, ('nek',)))
    with pytest.raises(ConfigError, match="nothing of the teacher's 'backbone.conv1' fits"):
        worker._prepare(job(setting, trained, tmp_path, ('backbone.conv1',)))
    with pytest.raises(CheckpointError, match='gone.pth'):
        worker._prepare(job(setting, tmp_path / 'gone.pth', tmp_path))
    assert [path.name for path in (tmp_path / 'work').iterdir()] == ['initial.log']


def test_own_modules_are_imported_before_anything_is_built(setting, trained, tmp_path, monkeypatch):
    (tmp_path / 'toy_worker_module.py').write_text('x = 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    one = job(setting, trained, tmp_path, ('nek',))
    one.imports = ['toy_worker_module']
    with pytest.raises(ConfigError, match='nek'):
        worker.run_job(one, lambda **_: None)
    assert sys.modules.pop('toy_worker_module').x == 1


def test_figures_are_of_mmdets_metrics_or_refused():
    assert figures({'coco/bbox_mAP': 0.4, 'coco/bbox_mAP_50': 0.6})['mAP'] == 0.4
    assert figures({'pascal_voc/mAP': 0.5}) == dict(mAP=0.5)
    assert set(figures({}).values()) == {0.0}  # nothing was found in any image
    with pytest.raises(DataError, match='found lvis/bbox_AP, expected coco/bbox_mAP'):
        figures({'lvis/bbox_AP': 0.4})
