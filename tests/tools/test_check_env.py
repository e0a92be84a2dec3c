"""The check at the end of the set-up."""

import subprocess
import sys
from pathlib import Path

import pytest
from loaded_tool import tool

TOOL = Path(__file__).parents[2] / 'tools' / 'check_env.py'


def test_a_good_environment_passes_and_prints_the_versions():
    done = subprocess.run([sys.executable, str(TOOL)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ('torch', 'mmcv', 'mmdet', 'mmengine', 'mmrazor', 'kd_det'):
        assert f'{name} ' in done.stdout
    assert 'nms, RoIAlign' in done.stdout


@pytest.mark.parametrize(
    'package, problem, remedy',
    [
        ('mmcv._ext', 'without compiled ops', 'make env'),
        ('joblib', "'joblib' is not installed", 'requirements/runtime.txt'),
    ],
)
def test_a_missing_part_is_one_sentence_with_the_remedy(package, problem, remedy):
    code = f"""
import runpy, sys
sys.modules[{package!r}] = None
sys.argv = ['check_env.py']
runpy.run_path({str(TOOL)!r}, run_name='__main__')"""
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1, done.stderr
    assert problem in done.stderr and remedy in done.stderr


@pytest.fixture
def check_env():
    return tool('check_env')


def test_ops_that_do_not_run(check_env, monkeypatch):
    import mmcv.ops  # noqa: F401

    monkeypatch.setattr(sys.modules['mmcv.ops.nms'], 'ext_module', object())
    with pytest.raises(check_env.Problem, match='do not run on cpu .*make env'):
        check_env.check_ops()


def test_ops_that_give_wrong_results(check_env, monkeypatch):
    import mmcv.ops

    real = mmcv.ops.nms
    monkeypatch.setattr(mmcv.ops, 'nms', lambda *args, **kwargs: (None, real(*args, **kwargs)[1][:1]))
    with pytest.raises(check_env.Problem, match=r'wrong results on cpu \(nms \[1\], expected \[1, 2\].*make env'):
        check_env.check_ops()


def test_packages_that_are_missing_or_refuse_each_other(check_env, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'pycocotools', None)
        with pytest.raises(check_env.Problem, match="'pycocotools' is not installed.*requirements/runtime.txt"):
            check_env.check_imports()
    import mmcv

    monkeypatch.setattr(mmcv, '__version__', '2.9.0')
    monkeypatch.delitem(sys.modules, 'mmdet')
    with pytest.raises(check_env.Problem, match='mmdet refuses the installed versions .*2.9.0.*make env'):
        check_env.check_imports()
