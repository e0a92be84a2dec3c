"""The check at the end of the set-up."""

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / 'tools' / 'check_env.py'


def test_a_good_environment_passes_and_prints_the_versions():
    done = subprocess.run([sys.executable, str(TOOL)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ('torch', 'mmcv', 'mmdet', 'mmengine', 'mmrazor', 'kd_det'):
        assert f'{name} ' in done.stdout
    assert 'nms, RoIAlign' in done.stdout


BROKEN = {
    'no compiled ops': ("import sys; sys.modules['mmcv._ext'] = None", 'without compiled ops', 'make env'),
    'ops of another torch': (
        "import sys, mmcv.ops; sys.modules['mmcv.ops.nms'].ext_module.nms = None",
        'do not run on cpu',
        'make env',
    ),
    'wrong results': (
        'import mmcv.ops as o; real = o.nms; o.nms = lambda *a, **k: (None, real(*a, **k)[1][:1])',
        'give wrong results',
        'make env',
    ),
    'no pycocotools': ("import sys; sys.modules['pycocotools'] = None", 'pycocotools', 'requirements/runtime.txt'),
    'no joblib': ("import sys; sys.modules['joblib'] = None", "'joblib' is not installed", 'requirements/runtime.txt'),
    'other mmcv': ("import mmcv; mmcv.__version__ = '2.9.0'", 'refuses the installed versions', 'make env'),
}


@pytest.mark.parametrize('case', BROKEN)
def test_what_is_broken_is_one_sentence_with_the_remedy(case):
    code, problem, remedy = BROKEN[case]
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            f"""{code}
import runpy, sys
sys.argv = ['check_env.py']
runpy.run_path({str(TOOL)!r}, run_name='__main__')""",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if 'arning' not in line]
    assert len(errors) == 1 and errors[0].startswith('error: '), done.stderr
    assert problem in errors[0] and remedy in errors[0]
