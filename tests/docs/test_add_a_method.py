"""docs/add_a_method.md: three new files, in a copy of the project, are all that a method needs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / 'docs' / 'examples' / 'defeat'


@pytest.mark.slow
def test_three_files_make_a_method(tmp_path):
    for folder in ('kd_det', 'configs', 'tests/losses', 'tests/methods'):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns('__pycache__'))
    for file in ('tests/conftest.py', 'tests/tiny_models.py', 'pyproject.toml'):
        shutil.copy(ROOT / file, tmp_path / file)
    for source, target in (
        ('defeat.py', 'kd_det/losses/defeat.py'),
        ('fragment.py', 'configs/_base_/distill/defeat.py'),
        ('test_defeat.py', 'tests/methods/test_defeat.py'),
    ):
        assert not (tmp_path / target).exists()
        shutil.copy(EXAMPLE / source, tmp_path / target)
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist']
    tests = ['tests/methods/test_defeat.py', 'tests/losses/test_common.py', '-k', 'test_defeat or DeFeatLoss']
    run = subprocess.run(
        [*command, *tests],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-2000:]
    assert '10 passed' in run.stdout.splitlines()[-1]


def test_the_example_is_as_short_as_promised():
    assert len((EXAMPLE / 'defeat.py').read_text().splitlines()) <= 36
    assert len((EXAMPLE / 'fragment.py').read_text().splitlines()) <= 3
    page = (ROOT / 'docs' / 'add_a_method.md').read_text()
    assert all(f'examples/defeat/{name}' in page for name in ('defeat.py', 'fragment.py', 'test_defeat.py'))
