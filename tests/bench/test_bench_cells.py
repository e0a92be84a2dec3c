"""The runs of a setting: which there are, what they need, when two are the same, and how long they train."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim.scheduler import CosineAnnealingLR, LinearLR, MultiStepLR
from torch import nn
from torch.optim import SGD
from toy_bench import CONFIGS, IMAGES, write_config, write_pair, write_setting

from kd_det.bench.cells import Cell, Cells, _contents, digest_of, stretch, without_places
from kd_det.bench.setting import load_setting
from kd_det.datasets.synthetic import SyntheticSpec, write_synthetic
from kd_det.errors import ConfigError


@pytest.fixture(scope='module')
def drawn(tmp_path_factory) -> Path:
    """A set that tests copy."""
    folder = tmp_path_factory.mktemp('drawn') / 'data'
    write_synthetic(folder, SyntheticSpec(**IMAGES))
    return folder


@pytest.fixture(scope='module')
def before(tmp_path_factory, drawn) -> dict[str, str]:
    """Digests of the full setting as it stands; they do not depend on its folder."""
    return digests(tmp_path_factory.mktemp('before'), drawn, **FULL)


def cells_of(
    folder: Path, drawn: Path, work: str = 'work', device: str = 'cpu', seed: int = 0, weights: str = 'both', **bench
) -> Cells:
    """Cells of a setting in its own folder with its own copy of the data."""
    data = folder / 'data'
    if not data.is_dir():
        shutil.copytree(drawn, data)
    images = {**IMAGES, 'seed': seed}
    setting = load_setting(write_setting(folder, data_root=str(data), synthetic=images, **bench))
    return Cells(setting, folder / work, device, weights)


FULL = dict(
    methods=['pkd', 'ft'],
    seeds=[0, 1],
    tune=dict(factors=[1.0, 4.0], holdout=0.25),
    longer=2,
    self_distilled='pkd',
    random_teacher=['pkd'],
    shuffled_teacher=['pkd'],
    as_long_as_teacher=True,
)


def measured(cell: Cell, mAP: float, diverged: bool = False) -> dict:
    return dict(
        cell=cell.name, digest=cell.digest, factor=cell.facts['factor'], metrics=dict(mAP=mAP), diverged=diverged
    )


def tuned_to(cells: Cells, factor: float) -> list[dict]:
    """Records of all tuning runs, of which those with one factor are the best."""
    methods, factors = cells.setting.methods.values(), cells.setting.tune['factors']
    return [measured(cells.tune(m, f), 0.5 if f == factor else 0.1) for m in methods for f in factors]


def tuned(cells: Cells, factor: float = 1.0) -> dict[str, Cell]:
    """All cells of a setting whose tuning is over."""
    return {cell.name: cell for cell in cells.all(tuned_to(cells, factor))}


# --- which there are --------------------------------------------------------------------------------------------------


def test_names_of_all_cells(tmp_path, drawn):
    names = list(tuned(cells_of(tmp_path, drawn, **FULL)))
    expected = ['teacher/trained', 'teacher/shuffled', 'teacher/tune', 'first_stage/ft', 'first_stage/ft/tune']
    expected += ['plain_as_teacher/seed0', 'timing/pkd', 'timing/ft']
    expected += ['tune/plain', *(f'tune/{m}/x{f}' for m in ('pkd', 'ft') for f in (1, 4))]
    for seed in (0, 1):
        expected += [f'{name}/seed{seed}' for name in ('plain', 'plain_longer', 'pkd/x1', 'ft/x1')]
        expected += [f'self_distilled/pkd/x1/seed{seed}']
        expected += [f'random_teacher/pkd/x1/seed{seed}', f'shuffled_teacher/pkd/x1/seed{seed}']
    assert sorted(names) == sorted(expected)
    assert names[:4] == ['teacher/trained', 'first_stage/ft', 'first_stage/ft/tune', 'teacher/tune']


def test_weights_choose_which_cells_there_are(tmp_path, drawn):
    published = {cell.name for cell in cells_of(tmp_path, drawn, weights='published', **FULL).all([])}
    assert 'pkd/x1/seed0' in published and not any('tune' in name for name in published)
    cells = cells_of(tmp_path, drawn, weights='tuned', **FULL)
    before = {cell.name for cell in cells.all([])}
    assert 'pkd/x1/seed0' not in before and {'tune/pkd/x1', 'plain/seed0', 'teacher/tune'} <= before
    after = {cell.name for cell in cells.all(tuned_to(cells, 4.0))}
    assert {name for name in after if name.startswith('pkd/')} == {'pkd/x4/seed0', 'pkd/x4/seed1'}


def test_tuned_cells_appear_when_all_tuning_runs_of_the_method_are_there(tmp_path, drawn):
    cells = cells_of(tmp_path, drawn, **FULL)
    x1, x4 = (cells.tune(cells.setting.methods['pkd'], factor) for factor in (1.0, 4.0))

    def quadruple(*records):
        return [cell.name for cell in cells.all(records) if cell.name.startswith('pkd/x4')]

    assert quadruple(measured(x4, 0.3)) == []
    assert quadruple(measured(x4, 0.3), {**measured(x1, 0.2), 'digest': 'of another schedule'}) == []
    assert quadruple(measured(x4, 0.3), measured(x1, 0.2)) == ['pkd/x4/seed0', 'pkd/x4/seed1']
    assert quadruple(measured(x4, 0.2), measured(x1, 0.3)) == []  # the published weights are the best
    assert quadruple(measured(x4, 0.9, diverged=True), measured(x1, 0.1)) == []
    assert cells.chosen(cells.setting.methods['pkd'], [measured(x4, 0.3), measured(x1, 0.2)]) == 4.0
    assert not any(name.startswith('ft/x4') for name in (c.name for c in cells.all([measured(x4, 0.3)])))


def test_other_teachers_teach_at_the_tuned_weights(tmp_path, drawn):
    cells = cells_of(tmp_path, drawn, **FULL)
    waiting = {cell.name for cell in cells.all([])}
    assert not any(name.startswith(('random', 'shuffled', 'self')) for name in waiting)
    listed = tuned(cells, 4.0)
    assert {'random_teacher/pkd/x4/seed0', 'shuffled_teacher/pkd/x4/seed1', 'self_distilled/pkd/x4/seed0'} <= set(
        listed
    )
    assert listed['self_distilled/pkd/x4/seed0'].facts['factor'] == 4.0
    published = {cell.name for cell in cells_of(tmp_path, drawn, weights='published', **FULL).all([])}
    assert {'random_teacher/pkd/x1/seed0', 'shuffled_teacher/pkd/x1/seed1', 'self_distilled/pkd/x1/seed0'} <= published


def test_needs_are_the_cells_whose_weights_are_read(tmp_path, drawn):
    needs = {name: cell.needs for name, cell in tuned(cells_of(tmp_path, drawn, **FULL)).items()}
    assert needs['teacher/trained'] == needs['plain/seed0'] == needs['plain_longer/seed1'] == ()
    assert needs['pkd/x1/seed1'] == ('teacher/trained',)
    assert needs['ft/x1/seed0'] == ('teacher/trained', 'first_stage/ft')
    assert needs['first_stage/ft'] == ('teacher/trained',) and needs['first_stage/ft/tune'] == ('teacher/tune',)
    assert needs['tune/ft/x4'] == ('teacher/tune', 'first_stage/ft/tune') and needs['tune/plain'] == ()
    assert needs['random_teacher/pkd/x1/seed0'] == () and needs['self_distilled/pkd/x1/seed1'] == ('plain/seed1',)
    assert needs['shuffled_teacher/pkd/x1/seed0'] == ('teacher/shuffled',)


def test_with_inheritance_all_students_need_the_teacher(tmp_path, drawn):
    cells = {cell.name: cell for cell in cells_of(tmp_path, drawn, inherit=['neck'], tune={}, longer=2).all([])}
    assert cells['plain/seed0'].needs == cells['plain_longer/seed0'].needs == ('teacher/trained',)
    assert cells['tune/plain'].needs == ('teacher/tune',)
    starts = [cells[name].job.part.initial for name in ('plain/seed0', 'plain_longer/seed0', 'pkd/x1/seed0')]
    assert len(set(starts)) == 1 and cells['tune/plain'].job.part.initial not in starts


def test_students_of_a_seed_start_from_one_file(tmp_path, drawn):
    starts = {}
    for cell in tuned(cells_of(tmp_path, drawn, **FULL)).values():
        if cell.facts['kind'] == 'student':
            starts.setdefault(cell.facts['seed'], set()).add(cell.job.part.initial)
    assert {seed: len(files) for seed, files in starts.items()} == {0: 1, 1: 1} and starts[0] != starts[1]


def test_facts_tell_what_was_run(tmp_path, drawn):
    cells = tuned(cells_of(tmp_path, drawn, **FULL))
    facts = cells['shuffled_teacher/pkd/x1/seed1'].facts
    wanted = dict(setting='toy', kind='student', role='method', method='pkd', teacher='shuffled', factor=1.0, seed=1)
    assert wanted.items() <= facts.items() and (facts['split'], facts['batch_size'], facts['epochs']) == ('val', 8, 1)
    assert (
        cells['tune/pkd/x4'].facts['distill']['pkd']['weight']
        == 4 * cells['pkd/x1/seed0'].facts['distill']['pkd']['weight']
    )
    assert cells['tune/pkd/x4'].facts['split'] == 'holdout' and cells['teacher/trained'].facts['split'] == 'val'
    assert cells['plain_longer/seed0'].facts['epochs'] == 2 and cells['plain/seed0'].facts['distill'] is None
    assert (cells['plain/seed0'].images, cells['plain_longer/seed0'].images, cells['tune/plain'].images) == (24, 48, 18)


def test_given_weights_are_only_measured_and_may_be_a_url(tmp_path, drawn):
    weights = tmp_path / 'teacher.pth'
    weights.write_bytes(b'one')
    cells = cells_of(tmp_path, drawn, teacher_checkpoint=str(weights), **FULL)
    listed = tuned(cells)
    teacher = listed['teacher/trained']
    assert teacher.job.only_test and teacher.images == 0 and 'teacher/tune' not in listed
    assert listed['tune/pkd/x1'].needs == ('teacher/trained',)
    weights.write_bytes(b'two')
    again = cells_of(tmp_path, drawn, teacher_checkpoint=str(weights), **FULL)
    assert again.teacher('trained').digest != teacher.digest
    assert again.plain(0).digest == listed['plain/seed0'].digest
    method = again.setting.methods['pkd']
    assert again.method(method, 1.0, 0).digest != listed['pkd/x1/seed0'].digest

    url = 'https://example.org/teacher.pth'
    cells = cells_of(tmp_path, drawn, teacher_checkpoint=url, inherit=['neck'], **FULL)
    part = cells.method(method, 1.0, 0).job.part
    assert part.runner_config().model.teacher.checkpoint == url and cells.plain(0).job.inherit[1] == url
    cells = cells_of(tmp_path, drawn, teacher_checkpoint=str(tmp_path / 'absent.pth'), **FULL)
    with pytest.raises(ConfigError, match=r'bench.teacher_checkpoint: .*absent.pth. does not exist'):
        cells.all([])


# --- when two are the same --------------------------------------------------------------------------------------------


def digests(*args, **kwargs) -> dict[str, str]:
    cells = cells_of(*args, **kwargs)
    listed = tuned(cells).values() if cells.setting.tune else cells.all([])
    return {cell.name: cell.digest for cell in listed}


def test_digests_do_not_depend_on_folders(tmp_path, drawn, before):
    again = digests(tmp_path / 'two' / 'deeper', drawn, work='elsewhere', **FULL)
    assert again == before and len(set(before.values())) == len(before) - 1  # teacher and student have one length here


def test_what_is_added_to_a_setting_leaves_the_other_cells_as_they_were(tmp_path, drawn, before):
    after = digests(tmp_path, drawn, seeds=[1])
    after.pop('timing/pkd')  # steps are timed with the first seed
    assert after.items() <= before.items()


def changed(tmp_path: Path, drawn: Path, before: dict[str, str], change=lambda folder: None, **bench) -> set[str]:
    """Names of cells whose digests a change of the files of a setting changes."""
    write_pair(tmp_path)
    shutil.copytree(drawn, tmp_path / 'data')
    change(tmp_path)
    after = digests(tmp_path, drawn, **{**FULL, **bench})
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_the_teacher_changes_all_that_learn_from_it(tmp_path, drawn, before):
    def change(folder):
        write_config(folder / 'teacher.py', CONFIGS / 'retina_r18.py', 2)

    own = {'plain/seed', 'plain_longer/seed', 'self_distilled/pkd/x1/seed', 'tune/plain'}
    expected = {name for name in before if name.rstrip('01') not in own}
    assert changed(tmp_path, drawn, before, change) == expected


def test_the_teachers_schedule_does_not_change_a_random_teacher(tmp_path, drawn, before):
    def change(folder):
        path = folder / 'teacher.py'
        path.write_text(path.read_text() + 'optim_wrapper = dict(optimizer=dict(lr=0.5))\n')

    found = changed(tmp_path, drawn, before, change)
    assert 'pkd/x1/seed0' in found and 'teacher/shuffled' in found
    assert not {'random_teacher/pkd/x1/seed0', 'plain/seed0', 'self_distilled/pkd/x1/seed0'} & found


def test_the_students_schedule_changes_students_only(tmp_path, drawn, before):
    def change(folder):
        write_pair(folder, optim_wrapper=dict(optimizer=dict(lr=0.5)))

    stay = {'teacher/trained', 'teacher/shuffled', 'teacher/tune', 'first_stage/ft', 'first_stage/ft/tune'}
    assert changed(tmp_path, drawn, before, change) == set(before) - stay


def test_the_data_changes_everything_and_pictures_of_it_nothing(tmp_path, drawn, before):
    def fewer_boxes(folder):
        path = folder / 'data' / 'annotations' / 'train.json'
        content = json.loads(path.read_text())
        content['annotations'].pop()
        path.write_text(json.dumps(content))

    def more_logs(folder):
        write_pair(folder, default_hooks=dict(logger=dict(interval=1)), visualizer=dict(name='other'))

    assert changed(tmp_path / 'a', drawn, before, fewer_boxes) == set(before)
    assert changed(tmp_path / 'c', drawn, before, more_logs) == set()


def test_a_methods_options_change_only_that_method(tmp_path, drawn, before):
    methods = dict(pkd=dict(change=dict(student='neck[0]', teacher='neck[0]')), ft={})
    found = changed(tmp_path, drawn, before, methods=methods)
    assert found == {n for n in before if 'pkd' in n or n.startswith('self_distilled')}


def test_tuning_options_change_only_what_is_tuned(tmp_path, drawn, before):
    tune = {**FULL['tune'], 'seed': 5}
    found = changed(tmp_path, drawn, before, tune=tune)
    assert found == {name for name in before if 'tune' in name}
    assert len(found) == 7


def test_models_to_try_have_teachers_without_weights(tmp_path, drawn):
    cells = cells_of(tmp_path, drawn, **FULL)
    before = {cell.name: cell.digest for cell in cells.all([])}
    (pkd,), (stage, ft) = (cells.models(cells.setting.methods[name]) for name in ('pkd', 'ft'))
    assert [m.type for m in (pkd, stage, ft)] == ['kd_det.DistillDetector', 'kd_det.ParaphraserTrainer', pkd.type]
    assert all(model.teacher.checkpoint is None for model in (pkd, stage, ft))
    assert cells.method(cells.setting.methods['pkd'], 1.0, 0).job.part.config.model.teacher.checkpoint  # a copy
    assert {cell.name: cell.digest for cell in cells.all([])} == before


def test_annotation_files_that_are_not_there(tmp_path, drawn):
    cells = cells_of(tmp_path, drawn, **FULL)
    assert cells.absent() == []
    (tmp_path / 'data' / 'annotations' / 'val.json').unlink()
    assert cells.absent() == [tmp_path / 'data' / 'annotations' / 'val.json']


def test_seed_factor_and_device_are_in_the_digest(tmp_path, drawn):
    cells = cells_of(tmp_path, drawn, **FULL)
    method = cells.setting.methods['pkd']
    made = [cells.method(method, factor, seed).digest for factor in (1.0, 4.0) for seed in (0, 1)]
    made += [cells.plain(0).digest, cells.plain(1).digest, cells.plain(0, 'plain_longer').digest]
    assert len(set(made)) == 7
    assert cells_of(tmp_path, drawn, device='cuda', **FULL).plain(0).digest != cells.plain(0).digest


def test_without_places_keeps_urls_and_everything_else():
    content = dict(
        a=[dict(data_root='/x', type='T')], checkpoint='file.pth', b=dict(checkpoint='https://x/y.pth'), c=(1,)
    )
    assert without_places(content) == dict(a=[dict(type='T')], b=dict(checkpoint='https://x/y.pth'), c=[1])
    assert digest_of(dict(a=1, b=2)) == digest_of(dict(b=2, a=1)) != digest_of(dict(a=1, b=3))


# --- how long they train ----------------------------------------------------------------------------------------------


def config(loop: dict, schedulers) -> Config:
    return Config(dict(train_cfg=loop, param_scheduler=schedulers))


def rates(scheduler_class, steps: int, **kwargs) -> list[float]:
    """Learning rates of mmengine's own scheduler, from 1."""
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    kwargs = {k: v for k, v in kwargs.items() if k not in ('type', 'convert_to_iter_based')}
    scheduler, found = scheduler_class(optimizer, **kwargs), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    return found


def test_cosine_by_epoch_reaches_its_end_and_the_warm_up_by_iteration_stays():
    warm = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30)
    cosine = dict(type='CosineAnnealingLR', by_epoch=True, T_max=8, begin=4, end=12, eta_min=0.1)
    cfg = config(
        dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1, dynamic_intervals=[(9, 1)]), [warm, cosine]
    )
    assert stretch(cfg, 1.5) == 18
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=18, val_interval=18)
    assert cfg.param_scheduler[0] == warm
    got = cfg.param_scheduler[1]
    assert (got.begin, got.end, got.T_max) == (6, 18, 12)
    curve = rates(CosineAnnealingLR, 19, **got)
    last = 0.1 + 0.9 * (1 + math.cos(math.pi * 11 / 12)) / 2  # the last of 12 epochs
    assert curve[6] == 1.0 and curve[12] == pytest.approx(0.55) and curve[17] == pytest.approx(last)


def test_hooks_that_change_the_training_near_its_end_move_too():
    cfg = config(dict(type='EpochBasedTrainLoop', max_epochs=20), [])
    cfg.custom_hooks = [
        dict(type='PipelineSwitchHook', switch_epoch=18, switch_pipeline=[]),
        dict(type='YOLOXModeSwitchHook', num_last_epochs=5),
        dict(type='EMAHook'),
    ]
    stretch(cfg, 0.5)
    assert cfg.custom_hooks[0]['switch_epoch'] == 9 and cfg.custom_hooks[1]['num_last_epochs'] == 2
    assert cfg.custom_hooks[2] == dict(type='EMAHook')


def test_milestones_move_with_the_schedule():
    step = dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)
    cfg = config(dict(type='EpochBasedTrainLoop', max_epochs=12), [step])
    assert stretch(cfg, 0.5) == 6
    got = cfg.param_scheduler[0]
    assert (got.end, got.milestones) == (6, [4, 5])  # the last before the end
    assert rates(MultiStepLR, 6, **got) == pytest.approx([1, 1, 1, 1, 0.1, 0.01])
    cfg = config(dict(type='EpochBasedTrainLoop', max_epochs=24), [dict(type='MultiStepLR', milestones=[8, 22])])
    assert stretch(cfg, 1 / 24) == 1
    assert rates(MultiStepLR, 1, **cfg.param_scheduler[0]) == [1.0]  # no drop before the first step


def test_schedules_by_iteration_follow_each_other_in_a_loop_of_iterations():
    warm = dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500)
    step = dict(type='MultiStepLR', by_epoch=False, begin=500, end=2000, milestones=[1000, 1500])
    cosine = dict(type='CosineAnnealingLR', by_epoch=False, begin=500, end=2000, T_max=1500)
    cfg = config(dict(type='IterBasedTrainLoop', max_iters=2000, val_interval=100), [warm, step, cosine])
    assert stretch(cfg, 0.01) == 20
    warm, step, cosine = cfg.param_scheduler
    assert warm.end == step.begin == cosine.begin == 5 and step.milestones == [10, 15]
    assert (cosine.T_max, cosine.end) == (15, 20) and cfg.train_cfg.val_interval == 20
    assert rates(LinearLR, 7, **warm)[5:] == pytest.approx([1, 1])


def test_a_schedule_of_its_own_length_stays_as_it_is():
    scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, T_max=6), dict(type='MultiStepLR', milestones=[3, 5])]
    cfg = config(dict(type='EpochBasedTrainLoop', max_epochs=6, val_interval=2), scheduler)
    assert stretch(cfg, 1.0) == 6
    assert [each.to_dict() for each in cfg.param_scheduler] == scheduler and cfg.train_cfg.val_interval == 6
    single = config(dict(max_epochs=4), dict(type='StepLR', step_size=2))
    assert stretch(single, 0.1) == 1 and single.param_scheduler.step_size == 1  # never less than one
    assert stretch(config(dict(max_epochs=4), None), 2) == 8


def test_a_loop_without_a_length_is_an_error():
    with pytest.raises(ConfigError, match='expected max_epochs or max_iters'):
        stretch(config(dict(type='EpochBasedTrainLoop'), []), 1.0)


def test_a_cell_that_tuning_has_not_come_to_has_a_name(tmp_path, drawn):
    cells = cells_of(tmp_path, drawn, **FULL)
    assert 'pkd/x4/seed1' not in {cell.name for cell in cells.all([])}
    for name in ('pkd/x4/seed1', 'random_teacher/pkd/x4/seed0', 'self_distilled/pkd/x0.25/seed1'):
        assert cells.named(name).name == name
    assert cells.named('fgd/x4/seed1') is None and cells.named('pkd/x4') is None


def test_a_shorter_run_has_a_shorter_warm_up_and_schedules_of_terms(tmp_path, drawn):
    cells = cells_of(tmp_path, drawn, **{**FULL, 'methods': dict(ab={}, ctkd={}, pkd={}), 'tune': dict(length=0.5)})
    methods = cells.setting.methods
    full, half = (methods['ab'].distill(length=length)['ab']['schedule'] for length in (1.0, 0.5))
    assert full == dict(end=2) and half == dict(end=1.0)
    assert methods['ctkd'].distill(length=0.5)['ctkd']['loss']['T']['decay_loops'] == 5
    assert cells.tune(methods['ab'], 1.0).facts['distill'] == methods['ab'].distill(length=0.5)
    warm = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30)
    cfg = config(dict(type='EpochBasedTrainLoop', max_epochs=12), [warm])
    stretch(cfg, 0.5)
    assert cfg.param_scheduler[0]['end'] == 15


def test_a_factor_multiplies_what_the_method_says(tmp_path, drawn):
    cells = cells_of(tmp_path, drawn, **{**FULL, 'methods': dict(ssdkd={}, pkd={})})
    (plain,), (strong,) = (cells.setting.methods['ssdkd'].distill(factor).values() for factor in (1.0, 5.0))
    assert strong['weight'] == plain['weight'] == 1.0
    for name, ratio in dict(soft_weight=5, l2_weight=5, conf_weight=1, loc_weight=1).items():
        assert strong['loss'][name] == pytest.approx(ratio * plain['loss'][name])
    with pytest.raises(ConfigError, match="scales: no 'loss.nothing'"):
        cells_of(tmp_path, drawn, **{**FULL, 'methods': dict(pkd=dict(scales=['loss.nothing']))})


def test_weights_of_the_users_that_change_change_the_digest(tmp_path, drawn):
    def digest(text: str, **student) -> str:
        folder = tmp_path / text
        folder.mkdir()
        (tmp_path / 'start.pth').write_text(text)
        write_pair(folder, **student)
        return cells_of(folder, drawn, **FULL).plain(0).digest

    start = dict(load_from=str(tmp_path / 'start.pth'))
    assert len({digest('a'), digest('b', **start), digest('c', **start)}) == 3


def test_weights_under_one_name_that_change_make_new_first_weights(tmp_path, drawn):
    start = tmp_path / 'backbone.pth'
    write_pair(
        tmp_path, model=dict(backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint=str(start))))
    )
    cells = []
    for text in ('one', 'two'):
        start.write_text(text)
        cells.append(cells_of(tmp_path, drawn, **FULL).plain(0))
    assert cells[0].digest != cells[1].digest
    assert cells[0].job.part.initial != cells[1].job.part.initial


def test_a_url_to_start_from_counts(tmp_path, drawn):
    digests = set()
    for number, start in enumerate([{}, dict(load_from='https://a/1.pth'), dict(load_from='https://a/2.pth')]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_pair(folder, **start)
        digests.add(cells_of(folder, drawn, **FULL).plain(0).digest)
    assert len(digests) == 3


def test_boxes_of_vocs_form_that_change_change_the_digest(tmp_path):
    leaf = dict(data_root=str(tmp_path), ann_file='VOC/Main/train.txt', data_prefix=dict(sub_data_root='VOC'))
    listed = tmp_path / leaf['ann_file']
    boxes = tmp_path / 'VOC' / 'Annotations' / '7.xml'
    for file in (listed, boxes):
        file.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text('7\n')
    found = {_contents(listed, leaf)}
    for text in ('<annotation/>', '<annotation><object/></annotation>'):
        boxes.write_text(text)
        found.add(_contents(listed, leaf))
    assert len(found) == 3


def test_a_record_says_its_fragment_and_whose_weights_are_changed(tmp_path, drawn):
    methods = dict(mine=dict(fragment='pkd'), strong=dict(fragment='pkd', change=dict(weight=3.0)))
    made = cells_of(tmp_path, drawn, methods=methods)
    methods = made.setting.methods
    facts = {name: made.method(methods[name], 1.0, 0).facts for name in ('mine', 'strong')}
    assert [facts[name]['fragment'] for name in facts] == ['pkd', 'pkd']
    assert facts['strong']['weights_are'] == 'ours' and 'weights_are' not in facts['mine']
    assert made.timing(methods['mine']).facts['fragment'] == 'pkd'
    assert made.plain(0).facts['plan']['weights'] == 'both'


def test_cells_of_joined_methods(tmp_path, drawn):
    methods = {'ft+pkd': {}, 'strong': dict(fragment='pkd', change=dict(weight=3.0)), 'strong+fgd': {}}
    made = cells_of(tmp_path, drawn, methods=methods, tune=dict(factors=[1.0, 4.0], holdout=0.25))
    methods = made.setting.methods
    cell = made.method(methods['ft+pkd'], 4.0, 1)
    losses = {name: term['loss'] for name, term in cell.job.part.config.model.distill.items()}
    assert losses['ft']['paraphraser'].endswith('.pth') and 'paraphraser' not in losses['pkd']
    assert cell.needs == ('teacher/trained', 'first_stage/ft+pkd') and cell.facts['fragment'] == 'ft+pkd'
    assert cell.facts['distill']['ft']['loss']['paraphraser'] == 'first_stage/ft+pkd'
    assert [term['weight'] for term in cell.facts['distill'].values()] == [100.0 * 4, 10.0 * 4]
    facts = made.method(methods['strong+fgd'], 1.0, 0).facts
    assert facts['fragment'] == 'pkd+fgd' and facts['weights_are'] == 'ours'
    assert [term['weight'] for term in facts['distill'].values()] == [3.0, 1.0]
    assert made.named('ft+pkd/x4/seed1').digest == cell.digest
    assert made.named('ft+kd/x4/seed1') is None


def test_shuffled_labels_are_as_frequent_as_the_real_ones(tmp_path, drawn):
    cells = cells_of(tmp_path, drawn, **FULL)
    (step,) = (
        s for s in cells.teacher('shuffled').job.part.config.train_dataloader.dataset.pipeline if 'Shuffle' in s['type']
    )
    content = json.loads((tmp_path / 'data' / 'annotations' / 'train.json').read_text())
    first = [c['id'] for c in content['categories']][0]
    share = sum(box['category_id'] == first for box in content['annotations']) / len(content['annotations'])
    assert step['frequencies'][0] == pytest.approx(share) and sum(step['frequencies']) == pytest.approx(1)
