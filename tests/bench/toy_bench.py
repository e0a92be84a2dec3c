"""A benchmark of seconds: two tiny RetinaNets on a few synthetic images, as setting files that tests can change."""

from __future__ import annotations

from pathlib import Path
from pprint import pformat
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs' / 'bench' / 'synthetic'
IMAGES = dict(seed=0, train=24, val=8, image_size=64)


def write_config(path: Path, base: Path, epochs: int = 1, **more: Any) -> Path:
    """A config on top of another one, in batches of 8."""
    content = dict(
        _base_=str(base),
        train_dataloader=dict(batch_size=8),
        train_cfg=dict(max_epochs=epochs, val_interval=epochs),
        **more,
    )
    path.write_text('\n'.join(f'{key} = {pformat(value)}' for key, value in content.items()) + '\n')
    return path


def write_pair(folder: Path, epochs: int = 1, **student: Any) -> None:
    """``teacher.py`` and ``student.py``: R18 of 16 and of 8 channels instead of 64."""
    folder.mkdir(parents=True, exist_ok=True)
    narrow = dict(backbone=dict(base_channels=16), neck=dict(in_channels=[16, 32, 64, 128]))
    write_config(folder / 'teacher.py', CONFIGS / 'retina_r18.py', epochs, model=narrow)
    write_config(folder / 'student.py', CONFIGS / 'retina_r18_narrow.py', epochs, **student)


def write_setting(folder: Path, name: str = 'toy', **bench: Any) -> Path:
    """A setting file; ``teacher.py`` and ``student.py`` beside it are written if they are absent."""
    if not (folder / 'student.py').is_file():
        write_pair(folder)
    bench = {**dict(teacher='teacher.py', student='student.py', methods=['pkd'], seeds=[0]), **bench}
    path = folder / f'{name}.py'
    path.write_text(f'bench = {pformat(bench)}\n')
    return path
