"""Packaging of kd_det.

Neither torch nor mmcv is a requirement here, on purpose: both are built for one machine (CPU or a CUDA version), and
``pip install -e .`` must not replace what a user has. ``make env`` installs them.
"""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION: dict = {}
exec((HERE / 'kd_det' / 'version.py').read_text(encoding='utf-8'), VERSION)


def requirements(name: str) -> list[str]:
    """The packages named in a file of ``requirements/``, without comments."""
    lines = (HERE / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.split('#')[0].strip() for line in lines if line.split('#')[0].strip()]


setup(
    name='kd_det',
    version=VERSION['__version__'],
    description='Object-detection distillation on MMDetection 3.x',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    packages=find_packages(include=['kd_det', 'kd_det.*']),
    python_requires='>=3.11',
    install_requires=requirements('runtime'),
    extras_require={'tests': requirements('tests'), 'docs': requirements('docs')},
    zip_safe=False,
)
