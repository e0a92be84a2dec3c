"""Settings: what a file may say, what is refused and in which words, and how methods differ from their fragments."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from toy_bench import CONFIGS, IMAGES, ROOT, write_config, write_setting

from kd_det.bench.setting import (
    Method,
    Setting,
    known_methods,
    load_setting,
    make_method,
    make_setting,
    merge,
    only_methods,
)
from kd_det.engine import load_config
from kd_det.errors import ConfigError, DataError

RETINA = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'


def refuse(tmp_path, message: str, error=ConfigError, **bench) -> None:
    with pytest.raises(error, match=message):
        load_setting(write_setting(tmp_path, **bench))


def test_a_file_becomes_a_setting(tmp_path):
    path = write_setting(
        tmp_path, 'mine', teacher=RETINA, methods=dict(fgd={}, soft=dict(fragment='kd')), random_teacher=['soft']
    )
    setting = load_setting(path)
    assert (setting.name, setting.title, setting.source) == ('mine', 'mine', str(path))
    assert setting.student == tmp_path / 'student.py' and setting.teacher.name == 'retinanet_r18_fpn_1x_coco.py'
    assert [(m.name, m.fragment) for m in setting.methods.values()] == [('fgd', 'fgd'), ('soft', 'kd')]
    assert setting.seeds == (0,) and setting.random_teacher == ('soft',) and setting.tune is None
    assert load_setting(path, seeds=[4, 5], title=None).seeds == (4, 5)


def test_every_key_of_a_setting_is_known_and_misspelt_ones_are_named(tmp_path):
    refuse(tmp_path, r"bench: unknown key 'sedes'; expected .*Nearest: 'seeds'", sedes=[0])
    refuse(tmp_path, r"bench: unknown key 'source'", source='x')
    refuse(tmp_path, r"tune: unknown key 'factor'; .*Nearest: 'factors'", tune=dict(factor=[1]))
    refuse(tmp_path, r"methods\.pkd: unknown key 'weigth'", methods=dict(pkd=dict(weigth=2)))
    refuse(
        tmp_path, r"methods\.pkd: unknown key 'task_weight'; .*'task_weights'", methods=dict(pkd=dict(task_weight=2))
    )
    refuse(tmp_path, r"synthetic: unknown key 'size'", synthetic=dict(size=64), data_root='x')
    refuse(tmp_path, 'image_size is 8', DataError, synthetic=dict(image_size=8), data_root='x')
    refuse(tmp_path, 'data_root: missing', synthetic={})


def test_misspelt_methods_terms_and_configs_are_named_with_the_nearest(tmp_path):
    refuse(tmp_path, r"no fragment 'fdg'.*Nearest: .*'fgd'", methods=['fdg'])
    refuse(tmp_path, r"no fragment 'ftt'.*Nearest: .*'ft'", methods=dict(pkd=dict(fragment='ftt')))
    refuse(
        tmp_path,
        r"methods\.pkd\.terms: no term 'pdk' in pkd.*Nearest: 'pkd'",
        methods=dict(pkd=dict(terms=dict(pdk={}))),
    )
    refuse(tmp_path, r"random_teacher: 'kpd' is none of .*Nearest: 'pkd'", random_teacher=['kpd'])
    refuse(tmp_path, r"shuffled_teacher: 'fgd' is none", shuffled_teacher=['fgd'])
    refuse(tmp_path, r"self_distilled: 'fgd' is none", self_distilled='fgd')
    refuse(tmp_path, r"bench\.teacher: .*teachr\.py' does not exist\. Nearest: 'teacher\.py'", teacher='teachr.py')
    refuse(tmp_path, r"bench\.student: 'mmdet::.*' does not exist", student='mmdet::retinanet/retinanet_r19.py')


def test_missing_things_are_named(tmp_path):
    for key in ('teacher', 'student', 'methods'):
        refuse(tmp_path, rf'bench\.{key}: missing', **{key: None})
    refuse(tmp_path, r'bench\.methods: missing', methods=[])
    path = tmp_path / 'none.py'
    path.write_text('x = 1\n')
    with pytest.raises(ConfigError, match=r"'bench' is missing; expected .*methods=dict\(…\)"):
        load_setting(path)
    with pytest.raises(ConfigError, match='setting: .* does not exist'):
        load_setting(tmp_path / 'absent.py')


@pytest.mark.parametrize(
    'tune, message',
    [
        (dict(factors=[0.2, 5]), 'expected 1, the published weights'),
        (dict(factors=[]), 'expected positive numbers'),
        (dict(factors=[1, 0]), 'expected positive numbers'),
        (dict(factors=[1, -2]), 'expected positive numbers'),
        (dict(factors=[1, 2, 2.0]), 'each once'),
        (dict(factors=[1, '2']), 'expected positive numbers'),
        (dict(factors=1), 'expected positive numbers'),
        (dict(length=0), 'tune.length: found 0, expected a share'),
        (dict(length=1.5), 'tune.length: found 1.5'),
        (dict(length='half'), "tune.length: found 'half'"),
        (dict(holdout=1), 'tune.holdout: found 1'),
        (True, 'tune: found True, expected a dict'),
    ],
)
def test_tuning_that_cannot_be(tmp_path, tune, message):
    refuse(tmp_path, message, tune=tune)


def test_values_of_the_wrong_kind_are_shown(tmp_path):
    refuse(tmp_path, r"bench\.methods: found 'pkd', expected a list", methods='pkd')
    refuse(tmp_path, r'bench\.seeds: found 3, expected a list', seeds=3)
    refuse(tmp_path, r"bench\.random_teacher: found 'pkd', expected a list", random_teacher='pkd')
    refuse(tmp_path, r'methods\.pkd: found 5, expected a dict', methods=dict(pkd=5))
    refuse(tmp_path, r'seeds: found \[0, 1, 0\], expected at least one, each once', seeds=[0, 1, 0])
    refuse(tmp_path, r'seeds: found \[\]', seeds=[])
    refuse(tmp_path, r'longer: found 0.5, expected more than 1', longer=0.5)
    refuse(tmp_path, r"longer: found 'twice'", longer='twice')


def test_tune_has_defaults_and_a_command_line_replaces_its_keys_one_by_one(tmp_path):
    assert load_setting(write_setting(tmp_path, tune={})).tune == dict(
        factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.25, seed=1000
    )
    path = write_setting(tmp_path, tune=dict(factors=[1, 3], length=0.3, seed=7))
    assert load_setting(path, tune=dict(factors=[1.0, 2.0])).tune == dict(
        factors=[1.0, 2.0], length=0.3, holdout=0.25, seed=7
    )


# --- methods ----------------------------------------------------------------------------------------------------------


def fragment(name: str) -> dict:
    return load_config(CONFIGS.parents[1] / '_base_' / 'distill' / f'{name}.py').distill.to_dict()


def test_merge_goes_into_dicts_and_delete_replaces_them():
    target = dict(loss=dict(type='A', tau=1.0, deep=dict(x=1)), weight=2.0, taps=['a'])
    change = dict(loss=dict(tau=4.0, deep=dict(y=2)), taps=['b'], adapter=dict(type='Conv'))
    merge(target, change)
    assert target == dict(
        loss=dict(type='A', tau=4.0, deep=dict(x=1, y=2)), weight=2.0, taps=['b'], adapter=dict(type='Conv')
    )
    target['taps'].append('c')
    target['adapter']['type'] = 'Other'
    assert change['taps'] == ['b'] and change['adapter'] == dict(type='Conv')  # copies
    merge(target, dict(loss=dict(_delete_=True, type='B')))
    assert target['loss'] == dict(type='B')


def test_a_method_without_changes_is_its_fragment():
    for name in ('pkd', 'fgd', 'cwd'):
        expected = fragment(name)
        for term in expected.values():
            term.setdefault('weight', 1.0)
        assert make_method(name).distill() == expected


def test_change_reaches_every_term_terms_one_and_the_factor_all_weights(tmp_path):
    path = tmp_path / 'two.py'
    path.write_text(
        "distill = dict(a=dict(student='neck', teacher='neck', loss=dict(type='kd_det.PKDLoss'), weight=3.0),\n"
        "               b=dict(student='neck', teacher='neck', loss=dict(type='kd_det.FitNetLoss')))\n"
        'task_weights = dict(loss_cls=0.5)\n'
    )
    given = dict(fragment=str(path), change=dict(student='neck[0]'), terms=dict(b=dict(loss=dict(x=1), weight=0.5)))
    method = make_method('two', given)
    a, b = method.distill(factor=10.0).values()
    assert (a['student'], b['student'], a['teacher']) == ('neck[0]', 'neck[0]', 'neck')
    assert (a['weight'], b['weight']) == (30.0, 5.0)
    assert a['loss'] == dict(type='kd_det.PKDLoss') and b['loss'] == dict(type='kd_det.FitNetLoss', x=1)
    assert method.distill()['a']['weight'] == 3.0  # nothing stuck
    assert method.weights_of_task() == dict(loss_cls=0.5)
    assert make_method('two', {**given, 'task_weights': {}}).weights_of_task() == {}


def test_what_some_methods_need_besides_is_there_and_can_be_replaced():
    assert make_method('crd').hooks == [dict(type='kd_det.InstanceIdHook')]
    assert make_method('mine', dict(fragment='ctkd')).no_decay == ['global_T']
    assert make_method('ft').first_stage == 'ft_paraphraser'
    assert make_method('ctkd', dict(no_decay=[])).no_decay == []
    assert make_method('pkd').hooks == [] and make_method('pkd').first_stage is None


def test_methods_joined_by_plus_are_one_with_the_terms_of_all():
    method = make_method('pkd+crosskd', dict(terms=dict(crosskd=dict(adapter=dict(idx=1)))))
    pkd, crosskd = method.distill(factor=2.0).values()
    assert (pkd['weight'], crosskd['weight'], crosskd['adapter']['idx']) == (20.0, 2.0, 1)
    assert list(method.distill()) == ['pkd', 'crosskd'] and method.weights_of_task() == {}
    assert (method.fragment, method.hooks, method.first_stage) == ('pkd+crosskd', [], None)
    with pytest.raises(ConfigError, match=r"fgd\+fgd_two_stage: fgd_two_stage has a second term 'fgd'"):
        make_method('fgd+fgd_two_stage')
    with pytest.raises(ConfigError, match="no fragment 'crossk'.*Nearest: .*'crosskd'"):
        make_method('pkd+crossk')
    with pytest.raises(ConfigError, match=r'terms: no term .mgd. in pkd\+fgd; expected one of pkd, fgd'):
        make_method('pkd+fgd', dict(terms=dict(mgd=dict(weight=1.0))))


def test_joined_methods_keep_what_each_needs():
    both = make_method('ssdkd+pkd')
    assert both.weights_of_task() == dict(loss_cls=0.0, loss_bbox=0.0)
    multibox, pkd = both.distill(factor=5.0).values()
    assert (multibox['weight'], multibox['loss']['soft_weight'], pkd['weight']) == (1.0, 1.5, 50.0)
    three = make_method('crd+ctkd+ft')
    assert three.hooks == [dict(type='kd_det.InstanceIdHook')] and three.no_decay == ['global_T']
    assert three.first_stage == 'ft_paraphraser'
    assert list(three.distill(fragment=three.first_stage)) == list(make_method('ft').distill(fragment='ft_paraphraser'))
    assert make_method('ssdkd+pkd', dict(task_weights={})).weights_of_task() == {}


def test_joined_names_mean_the_methods_of_the_setting(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(
        "custom_imports = dict(imports=['json'])\n"
        "distill = dict(a=dict(student='neck', teacher='neck', loss=dict(type='kd_det.PKDLoss')))\n"
        'task_weights = dict(loss_cls=0.5)\n'
    )
    (tmp_path / 'a+b.py').write_text(path.read_text())
    methods = {
        'own+crosskd': dict(terms=dict(a=dict(weight=3.0))),
        'crosskd': dict(change=dict(adapter=dict(idx=1))),
        'own': dict(fragment='own.py', task_weights=dict(loss_cls=0.0)),
        'one': dict(fragment='a+b.py'),
    }
    setting = load_setting(write_setting(tmp_path, methods=methods))
    assert set(setting.methods) == set(methods)
    a, crosskd = setting.methods['own+crosskd'].distill(factor=2.0).values()
    assert (a['weight'], crosskd['weight'], crosskd['adapter']['idx']) == (6.0, 2.0, 1)
    assert setting.methods['own+crosskd'].imports() == ['json']
    assert setting.methods['own+crosskd'].weights_of_task() == dict(loss_cls=0.0)
    assert list(setting.methods['one'].distill()) == ['a']
    with pytest.raises(ConfigError, match="'loss_cls' the task_weights 0 and 0.5; expected task_weights"):
        make_method('ssdkd+one', others=setting.methods)
    only_methods(setting, ['pkd+crosskd'])
    assert setting.methods['pkd+crosskd'].distill()['crosskd']['adapter']['idx'] == 1


def test_own_fragments_lie_beside_the_setting_or_where_one_stands(tmp_path, monkeypatch):
    text = "distill = dict(a=dict(student='neck', teacher='neck', loss=dict(type='kd_det.PKDLoss'), weight={}))\n"
    (tmp_path / 'here').mkdir()
    (tmp_path / 'beside.py').write_text(text.format(2.0))
    (tmp_path / 'here' / 'there.py').write_text(text.format(3.0))
    monkeypatch.chdir(tmp_path / 'here')
    methods = dict(one=dict(fragment='beside.py'), two=dict(fragment='there.py', first_stage='beside.py'))
    one, two = load_setting(write_setting(tmp_path, methods=methods)).methods.values()
    assert (one.distill()['a']['weight'], two.distill()['a']['weight']) == (2.0, 3.0)
    assert two.distill(fragment=two.first_stage)['a']['weight'] == 2.0


def test_a_fragment_that_is_nowhere_names_the_folders(tmp_path, monkeypatch):
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    for methods in (dict(one=dict(fragment='own.py')), dict(one=dict(fragment='ft', first_stage='own.py'))):
        refuse(
            tmp_path,
            rf"no fragment 'own.py' in '{tmp_path}' or '{tmp_path}/here'; .* or an existing file",
            methods=methods,
        )
    refuse(tmp_path, rf"no fragment 'own' in '{CONFIGS.parents[1]}/_base_/distill'; .* ends in \.py", methods=['own'])
    with pytest.raises(ConfigError, match=rf"no fragment 'own.py' in '{tmp_path}/here'"):
        make_method('own.py')


def test_modules_that_fragments_import_are_known(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(
        "custom_imports = dict(imports=['json'])\n"
        "distill = dict(a=dict(student='neck', teacher='neck', loss=dict(type='kd_det.PKDLoss')))\n"
    )
    assert make_method('own', dict(fragment=str(path))).imports() == ['json']
    assert make_method('ft').imports() == []


def test_only_keeps_adds_and_drops(tmp_path):
    path = write_setting(
        tmp_path,
        methods=dict(pkd=dict(change=dict(weight=7.0)), fitnet={}),
        random_teacher=['pkd', 'fitnet'],
        shuffled_teacher=['fitnet'],
        self_distilled='fitnet',
    )
    setting = load_setting(path)
    only_methods(setting, ['mgd', 'pkd'])
    assert list(setting.methods) == ['mgd', 'pkd'] and setting.methods['pkd'].distill()['pkd']['weight'] == 7.0
    assert (setting.random_teacher, setting.shuffled_teacher, setting.self_distilled) == (('pkd',), (), None)
    with pytest.raises(ConfigError, match="no fragment 'mgdd'"):
        only_methods(setting, ['mgdd'])
    assert setting.left_out == ('fitnet',)
    assert {'fgd', 'pkd', 'ft_paraphraser'} <= set(known_methods())


# --- options of the whole setting -------------------------------------------------------------------------------------


def steps(cfg, loader: str, name: str) -> list[dict]:
    return [step for step in cfg[loader].dataset.pipeline if step.type.split('.')[-1] == name]


def test_options_data_root_image_size_and_cache_reach_both_configs(tmp_path):
    path = write_setting(
        tmp_path,
        data_root=str(tmp_path / 'data'),
        synthetic=IMAGES,
        options={'train_cfg.max_epochs': 9, 'model.neck.num_outs': 5},
        cache_images=True,
    )
    setting = load_setting(path)
    for who in ('teacher', 'student'):
        cfg = setting.config(who)
        assert cfg.train_cfg.max_epochs == 9 and cfg.model.neck.num_outs == 5
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            assert cfg[loader].dataset.data_root == str(tmp_path / 'data')
            assert [step.scale for step in steps(cfg, loader, 'Resize')] == [(64, 64)]
            assert steps(cfg, loader, 'LoadImageOnce') and not steps(cfg, loader, 'LoadImageFromFile')
        assert Path(cfg.val_evaluator.ann_file) == tmp_path / 'data' / cfg.val_dataloader.dataset.ann_file
    cfg = setting.config('student')
    cfg.train_cfg.max_epochs = 1
    assert setting.config('student').train_cfg.max_epochs == 9  # each call gives its own copy


def test_without_such_options_configs_stay_as_they_are(tmp_path):
    setting = load_setting(write_setting(tmp_path))
    cfg, plain = setting.config('student'), load_config(tmp_path / 'student.py')
    assert cfg.to_dict() == {**plain.to_dict(), 'default_scope': 'mmdet'}


def test_evaluators_in_a_list_follow_the_data_root(tmp_path):
    write_setting(tmp_path)
    metrics = [dict(type='CocoMetric', ann_file='old.json'), dict(type='DumpDetResults', out_file_path='x.pkl')]
    write_config(tmp_path / 'listed.py', tmp_path / 'student.py', val_evaluator=metrics)
    given = dict(teacher=tmp_path / 'teacher.py', student=tmp_path / 'listed.py', methods=['pkd'], data_root='/new')
    first, second = make_setting(given, 'own').config('student').val_evaluator
    assert first.ann_file.startswith('/new/') and 'ann_file' not in second


def test_options_that_do_not_fit_are_named(tmp_path):
    setting = load_setting(write_setting(tmp_path, options={'param_scheduler.7.end': 3}))
    with pytest.raises(ConfigError, match=r'param_scheduler\.7\.end'):
        setting.config('student')


# --- what the page says -----------------------------------------------------------------------------------------------

PAGE = (ROOT / 'docs' / 'benchmark.md').read_text()


def test_the_tiny_setting_of_the_page_loads(tmp_path):
    (text,) = (block for block in re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL) if '# tiny.py' in block)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')  # it lies in the folder of the repository
    (tmp_path / 'tiny.py').write_text(text)
    setting = load_setting(tmp_path / 'tiny.py')
    for who in ('teacher', 'student'):
        cfg = setting.config(who)
        assert cfg.train_cfg.max_epochs == 2 and [s.get('T_max') for s in cfg.param_scheduler] == [None, 2]
        assert {step.scale for step in steps(cfg, 'train_dataloader', 'Resize')} == {(64, 64)}
        assert cfg.train_dataloader.batch_size == 8
    assert all(method.distill() for method in setting.methods.values())


def test_the_setting_of_the_page_loads(tmp_path):
    (text,) = (block for block in re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL) if '# my_setting.py' in block)
    for name, base in (
        ('my_teacher', 'bench/synthetic/retina_r18'),
        ('my_student', 'bench/synthetic/retina_r18_narrow'),
        ('my_fragment', '_base_/distill/at'),
    ):
        (tmp_path / f'{name}.py').write_text(f"_base_ = '{ROOT}/configs/{base}.py'\n")
    (tmp_path / 'my_setting.py').write_text(text)
    setting = load_setting(tmp_path / 'my_setting.py')
    assert all(method.distill() for method in setting.methods.values())
    assert setting.shuffled_teacher == ('kd',) and 'fgd+crosskd' in setting.methods


def test_the_page_has_a_row_for_each_key():
    rows = re.findall(r'^\| `(\w+)` \|', PAGE, re.MULTILINE)
    keys = [f.name for f in fields(Setting) if f.name not in ('name', 'source')]
    of_method = [f.name for f in fields(Method) if f.name not in ('name', 'parts')]  # parts come from joined names
    assert rows == [*keys, *of_method]
