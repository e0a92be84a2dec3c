"""What a figure was measured on: versions, processor, memory of this process."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kd_det.version import __version__

__all__ = ['PACKAGES', 'processor', 'resident', 'versions']

#: What a record names besides kd_det and Python.
PACKAGES = ('torch', 'mmcv', 'mmengine', 'mmdet', 'mmrazor', 'pycocotools', 'numpy')


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of kd_det, Python and packages; ``'absent'`` for one that is not installed."""
    found = dict(kd_det=__version__, python=platform.python_version())
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = 'absent'
    return found


def processor() -> str:
    """Name of the processor, from Linux, else what Python knows."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        lines = []
    models = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return models[0] if models else platform.processor() or platform.machine()


def resident(field: str) -> float | None:
    """MiB of this process, from Linux: now (``VmRSS``) or at most so far (``VmHWM``); None elsewhere."""
    try:
        lines = Path('/proc/self/status').read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith(f'{field}:'))) / 1024
    except (OSError, StopIteration):
        return None
