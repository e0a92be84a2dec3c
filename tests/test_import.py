"""What importing kd_det costs."""

import os
import subprocess
import sys

import pytest


def seconds(module):
    """Processor time of a fresh interpreter that imports a module: other work on the machine does not count."""
    before = os.times()
    subprocess.run([sys.executable, '-W', 'ignore', '-c', f'import {module}'], check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


@pytest.mark.slow
def test_little_more_than_mmdet():
    times = {module: [] for module in ('mmdet.models', 'kd_det')}
    for _ in range(3):
        for module, found in times.items():
            found.append(seconds(module))
    ratio = min(times['kd_det']) / min(times['mmdet.models'])
    print(f'import kd_det / import mmdet.models: {ratio:.2f} ({times})')
    assert ratio < 1.5
