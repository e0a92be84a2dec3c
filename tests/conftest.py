"""What all tests share; the modules beside this file (``tiny``, ``tiny_models``) can be imported by name."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
if os.environ.get('KD_DET_TEST_CUDA') != '1':  # the tests are written for a CPU, and mmcv may lack CUDA ops
    os.environ['CUDA_VISIBLE_DEVICES'] = ''

import pytest  # noqa: E402
import torch  # noqa: E402

#: Data and reference numbers beside the repository; tests that need them skip where it is absent.
SHARED = Path(__file__).resolve().parents[2] / 'shared'


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder of shared data; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f'needs the shared folder {SHARED}')
    return SHARED


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_visualizer():
    """A runner's visualizer is global and would be the next test's."""
    yield
    from mmengine.visualization import Visualizer

    classes = [Visualizer]
    for cls in classes:
        cls._instance_dict.clear()
        classes += cls.__subclasses__()


@pytest.fixture(autouse=True)
def mmdet_scope():
    """Every test finds mmdet's names, whichever scope a runner of an earlier test has left behind."""
    from mmengine.registry import DefaultScope

    current = DefaultScope.get_current_instance()
    if current is not None and current.scope_name != 'mmdet':
        DefaultScope.get_instance(f'{current.instance_name}-mmdet', scope_name='mmdet')
