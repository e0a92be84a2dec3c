"""From what a user types after ``tools/train.py`` to a config."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kd_det import compat
from kd_det.errors import ConfigError, did_you_mean


def config_path(name: str | Path, key: str = 'config') -> Path:
    """The file of a config.

    Args:
        name: A path, or ``<package>::<path>`` for a config that an OpenMMLab package carries, such as
            ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py`` or ``mmrazor::distill/mmdet/cwd/….py``.
        key: The config key or argument to blame in errors.

    Raises:
        ConfigError: If there is no such package or file.
    """
    name = str(name)
    if '::' not in name:
        path = Path(name)
    else:
        package, relative = name.split('::', 1)
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
        if spec is None or spec.origin is None:
            raise ConfigError(
                f"{key}: {name!r}: no package {package!r} is installed. Packages with configs: 'mmdet', 'mmrazor'."
            )
        if not relative.endswith('.py'):
            relative += '.py'
        if package == 'mmdet':
            holder = [f'mmdet::{relative}']
            compat.rename_mmdet_configs(holder)
            relative = holder[0].split('::', 1)[1]
        path = Path(spec.origin).parent / '.mim' / 'configs' / relative
    if not path.is_file():
        folder = path.parent
        if folder.is_dir():
            hint = did_you_mean(path.name, [p.name for p in folder.glob('*.py')])
        else:
            siblings = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
            hint = f' The folder {folder.name!r} does not exist.{did_you_mean(folder.name, siblings)}'
        raise ConfigError(f'{key}: {name!r} does not exist.{hint}')
    return path


def load_config(name: str | Path, options: Mapping[str, Any] | None = None, key: str = 'config') -> Config:
    """Read a config and everything that it inherits, and make the packages that it names importable.

    Args:
        name: See :func:`config_path`.
        options: Dotted keys and values that override it, from ``--cfg-options``.
        key: The config key or argument to blame in errors.

    Raises:
        ConfigError: If the file, or one of its bases, does not exist or cannot be read.
    """
    path = config_path(name, key)
    try:
        cfg = Config.fromfile(path)
    except ConfigError:
        raise
    except FileNotFoundError as error:
        raise ConfigError(f'{key}: {str(path)!r}: a base of it does not exist ({error}).') from error
    except Exception as error:
        raise ConfigError(f'{key}: {str(path)!r} cannot be read ({type(error).__name__}: {error}).') from error
    apply_options(cfg, options)
    compat.rename_mmdet_configs(cfg)
    if 'mmrazor' in str(cfg.to_dict()):
        compat.import_mmrazor()
    return cfg


def apply_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Merge ``--cfg-options`` into a config, in place.

    Raises:
        ConfigError: If a key does not fit the config, such as an index into something that is no list.
    """
    for key, value in (options or {}).items():
        try:
            cfg.merge_from_dict({key: value})
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ConfigError(f'--cfg-options {key}={value}: {error}') from error
