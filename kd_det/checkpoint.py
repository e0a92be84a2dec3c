"""Checkpoints: read them safely, take the student out of them, write them whole.

A checkpoint may come from kd_det (``student.*``, ``distill.*``), from mmrazor (``architecture.*``, ``teacher.*``,
``distiller.*``) or from plain mmdet (no prefix); it may hold an averaged copy (EMA) and the prefixes of DDP or
``torch.compile``. :func:`student_state_dict` makes plain mmdet weights of all of them and :func:`export_student` a
checkpoint that plain mmdet loads.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import io
import os
import pickle
import re
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from kd_det import compat
from kd_det.errors import CheckpointError, ConfigError, did_you_mean

#: Where each kind of wrapper keeps the student.
STUDENT_PREFIX = {'kd_det': 'student.', 'mmrazor': 'architecture.'}
_WRAPPER_PREFIXES = ('module.', '_orig_mod.')


# --- reading ----------------------------------------------------------------------------------------------------------


def load_checkpoint_safely(source: str | Path, map_location: Any = 'cpu', key: str = 'checkpoint') -> dict[str, Any]:
    """Load a checkpoint without ever running what it holds (``weights_only=True`` and an allow-list).

    Args:
        source: A path, or a name that mmengine's ``CheckpointLoader`` knows: ``http(s)://``, ``torchvision://``,
            ``open-mmlab://``, ``mmcls://``.
        map_location: As in ``torch.load``.
        key: The config key or command-line argument to blame in errors.

    Returns:
        The checkpoint, with the weights under ``state_dict``. Bare state dicts are put there.

    Raises:
        CheckpointError: If the file is missing, truncated or damaged, holds code, or is not a checkpoint.
    """
    source = str(source)
    path = Path(source).expanduser()
    try:
        if '://' in source:
            from mmengine.runner import CheckpointLoader

            loaded = CheckpointLoader.load_checkpoint(source, map_location=map_location, logger='silent')
        else:
            check_file(path, key)
            loaded = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unpickling_error(key, source, path, error) from error
    except (RuntimeError, EOFError, OSError, KeyError, IndexError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, (CheckpointError, ConfigError)):
            raise
        raise CheckpointError(
            f'{key}: {source!r} is damaged and cannot be read '
            f'({type(error).__name__}: {_first_line(error)}); fetch or write it again.'
        ) from error

    if isinstance(loaded, Mapping) and isinstance(loaded.get('state_dict'), Mapping):
        weights = loaded['state_dict']
    elif isinstance(loaded, Mapping) and isinstance(loaded.get('model'), Mapping):  # timm, detectron2, DETR
        weights, loaded = loaded['model'], {**loaded, 'state_dict': loaded['model']}
    else:
        weights, loaded = loaded, {'meta': {}, 'state_dict': loaded}
    if not isinstance(weights, Mapping) or not any(isinstance(v, Tensor) for v in weights.values()):
        found = sorted(map(str, weights))[:5] if isinstance(weights, Mapping) else type(weights).__name__
        raise CheckpointError(
            f"{key}: {source!r} holds no weights; expected a state dict, alone or under 'state_dict', found {found}."
        )
    return dict(loaded)


def check_file(path: Path, key: str) -> None:
    """Check by its first bytes that a file is there, whole, and a checkpoint of torch.

    Raises:
        CheckpointError: If it is not.
    """
    if not path.is_file():
        near = (
            did_you_mean(path.name, [p.name for p in path.parent.glob('*.pth')])
            if path.parent.is_dir()
            else (f' The folder {str(path.parent)!r} does not exist.')
        )
        what = 'is a folder, not a file' if path.is_dir() else 'does not exist'
        raise CheckpointError(f'{key}: {str(path)!r} {what}.{near}')
    with path.open('rb') as file:
        start = file.read(4)
    if not start or (start == b'PK\x03\x04' and not zipfile.is_zipfile(path)):
        raise CheckpointError(
            f'{key}: {str(path)!r} is truncated ({path.stat().st_size} bytes, its end is missing); '
            'fetch or write it again.'
        )
    if start[:2] not in (b'PK', b'\x80\x02', b'\x80\x03', b'\x80\x04', b'\x80\x05'):
        raise CheckpointError(f'{key}: {str(path)!r} is not a checkpoint of torch: it starts with {start!r}.')


def _unpickling_error(key: str, source: str, path: Path, error: pickle.UnpicklingError) -> CheckpointError:
    text = str(error)
    name = re.search(r'GLOBAL (\S+)|unrecognized function (\S+)|but got (<class \S+>|\S+)$', text)
    if name or 'blocked' in text:
        name = next((group for group in name.groups() if group), '?') if name else '?'
        return CheckpointError(
            f'{key}: {source!r} holds code or foreign objects ({name}), which weights do not need, and was not loaded. '
            'If you trust its origin, load it elsewhere, save its state_dict alone, and use that file.'
        )
    return CheckpointError(f'{key}: {source!r} is damaged or not a checkpoint of torch ({_first_line(error)}).')


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else 'no text'


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """The newest complete checkpoint of a work folder, or None if training never saved one there.

    mmengine keeps the name in ``last_checkpoint``. A run that was killed while saving can leave that file empty, or
    pointing to a checkpoint that was rotated away; the newest complete ``epoch_*.pth`` or ``iter_*.pth`` is taken then.

    Raises:
        CheckpointError: If checkpoints were saved and none of them is complete.
    """
    work_dir = Path(work_dir)
    pointer = work_dir / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if '://' in named:
        return named
    candidates = [Path(named), work_dir / Path(named).name] if named else []
    numbered = [p for pattern in ('epoch_*.pth', 'iter_*.pth') for p in work_dir.glob(pattern)]
    candidates += sorted(numbered, key=lambda p: p.stat().st_mtime, reverse=True)
    for path in candidates:
        if path.is_file() and zipfile.is_zipfile(path):
            return str(path)
    if candidates:
        raise CheckpointError(
            f'resume: no complete checkpoint in {str(work_dir)!r}; last_checkpoint names '
            f'{named!r}. Delete {str(pointer)!r} to start anew, or give --resume a file.'
        )
    return None


# --- the student in it ------------------------------------------------------------------------------------------------


def checkpoint_kind(state_dict: Mapping[str, Any]) -> str:
    """Who wrote these weights: ``'kd_det'``, ``'mmrazor'`` or ``'mmdet'`` (plain)."""
    parts = {_bare(key).split('.', 1)[0] for key in state_dict}
    if 'architecture' in parts:
        return 'mmrazor'
    # a semi-supervised detector of mmdet has a student too, and its teacher beside it, where kd_det never has one
    distils = 'student' in parts and 'teacher' not in parts
    return 'kd_det' if distils or parts == {'distill'} else 'mmdet'  # terms alone: paraphrasers


def _bare(key: str) -> str:
    while key.startswith(_WRAPPER_PREFIXES):
        key = key.split('.', 1)[1]
    return key


def student_state_dict(checkpoint: Mapping[str, Any]) -> OrderedDict[str, Tensor]:
    """The student's weights, named as plain mmdet names them.

    With an EMA hook mmengine keeps the averaged weights, the ones that were evaluated, in ``state_dict``, and these are
    taken.

    Args:
        checkpoint: What :func:`load_checkpoint_safely` returns, or a bare state dict.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    prefix = STUDENT_PREFIX.get(checkpoint_kind(weights), '')
    student = OrderedDict()
    for key, value in weights.items():
        key = _bare(key)
        if key.startswith(prefix) and isinstance(value, Tensor):
            student[_bare(key[len(prefix) :])] = value
    # the version of each module, by which mmcv and mmdet recognise weights of older releases
    versions = OrderedDict()
    for name, value in (getattr(weights, '_metadata', None) or {}).items():
        name = _bare(f'{name}.')
        if name.startswith(prefix):
            versions[_bare(name[len(prefix) :]).removesuffix('.')] = value
    student._metadata = versions
    return student


def load_student(model: nn.Module, checkpoint: Mapping[str, Any], source: str) -> list[str]:
    """Load the student of a checkpoint into a plain detector, all of it.

    Args:
        model: The detector, possibly inside DDP or a test-time-augmentation wrapper.
        checkpoint: What :func:`load_checkpoint_safely` returns.
        source: Its name, for the error.

    Returns:
        Names of weights in the checkpoint for which the model has no place.

    Raises:
        CheckpointError: If weights of the model are missing in the checkpoint or differ in shape.
    """
    from mmengine.model import BaseTTAModel, is_model_wrapper

    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    weights = student_state_dict(checkpoint)
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        wanted = model.state_dict()
        shapes = [
            f'{key} is {tuple(value.shape)}, expected {tuple(wanted[key].shape)}'
            for key, value in weights.items()
            if key in wanted and value.shape != wanted[key].shape
        ]
        raise CheckpointError(
            f'checkpoint: {source!r} does not fit the model of the config, {type(model).__name__}: '
            f'{_some(shapes) or _first_line(error)}.'
        ) from error
    missing = [key for key in missing if not key.endswith('num_batches_tracked')]
    if missing:
        raise CheckpointError(
            f'checkpoint: {source!r} does not fit the model of the config, {type(model).__name__}: {len(missing)} of '
            f'{len(model.state_dict())} weights are missing in it ({_some(missing)}). '
            f'It holds {_some(list(weights))}.'
        )
    return list(unexpected)


def _some(names: list[str], n: int = 4) -> str:
    return ', '.join(names[:n]) + (f', … {len(names) - n} more' if len(names) > n else '')


# --- the student's config ---------------------------------------------------------------------------------------------


def student_config(cfg: Config) -> Config:
    """The plain mmdet config of the student of a distillation config.

    ``model`` becomes the student; loops, hooks and variables that only distillation needs are dropped, and images are
    loaded by ``LoadImageFromFile`` instead of :class:`~kd_det.datasets.LoadImageOnce`. Otherwise a plain mmdet config
    comes back equal.

    Args:
        cfg: A config of kd_det, of mmrazor, or of plain mmdet. Not changed.

    Raises:
        ConfigError: If there is no ``model``, or no student in it.
    """
    plain = copy.deepcopy(cfg._cfg_dict)
    model = plain.get('model')
    if not isinstance(model, dict):
        raise ConfigError(f"model: {model!r}; expected a dict with 'type'. The config defines no detector.")
    if type_name(model) == 'DistillDetector':
        student = model.get('student')
        if not isinstance(student, dict):
            raise ConfigError(f'model.student: {student!r}; expected the config of an mmdet detector.')
    elif 'architecture' in model:
        student = model['architecture']
        if 'cfg_path' in student:
            from mmengine.hub import get_config

            holder = dict(cfg_path=student['cfg_path'])
            compat.rename_mmdet_configs(holder)
            inner = get_config(holder['cfg_path'])
            student = inner.model
            if 'data_preprocessor' in inner:
                student.data_preprocessor = inner.data_preprocessor
    else:
        return _without_our_loading(plain)

    plain['model'] = ConfigDict(student)
    for name in ('student', 'teacher', 'teacher_ckpt', 'distill', 'inherit', 'find_unused_parameters'):
        plain.pop(name, None)
    plain['default_scope'] = 'mmdet'
    if _is_foreign(plain.get('val_cfg')):
        plain['val_cfg'] = ConfigDict(type='ValLoop')
    if plain.get('custom_hooks'):
        plain['custom_hooks'] = [hook for hook in plain['custom_hooks'] if not _is_foreign(hook)]
    hooks = ConfigDict(plain.get('default_hooks') or {})
    for name in [name for name, hook in hooks.items() if _is_foreign(hook)]:
        del hooks[name]
    if hooks:
        hooks.setdefault('visualization', ConfigDict(type='DetVisualizationHook'))
        plain['default_hooks'] = hooks
    return _without_our_loading(plain)


def _without_our_loading(plain: ConfigDict) -> Config:
    """The config with mmdet's own loading of images, and without imports that nothing in it needs."""
    for part in _dicts(plain):
        if _foreign_name(part) == 'kd_det.LoadImageOnce':
            part['type'] = 'LoadImageFromFile'
            for key in ('_scope_', 'max_images', 'max_bytes'):
                part.pop(key, None)
    imports = plain.get('custom_imports')
    if imports:
        names = [imports['imports']] if isinstance(imports['imports'], str) else list(imports['imports'])
        used = {name.split('.')[0] for name in foreign_names(plain)}  # a data set of kd_det, say
        if 'mmrazor' in used:
            used.add('kd_det')  # without which it does not import
        unused = {'kd_det', 'mmrazor'} - used
        names = [name for name in names if name.split('.')[0] not in unused]
        plain.pop('custom_imports') if not names else imports.update(imports=names)
    return Config(plain)


def foreign_names(cfg: Config | Mapping[str, Any]) -> list[str]:
    """Classes of kd_det and mmrazor that a config names, as ``['kd_det.SyntheticDataset']``, sorted.

    Args:
        cfg: A config or a part of one. Its imports are not looked at.
    """
    return sorted({name for part in _dicts(cfg) if (name := _foreign_name(part))})


def _dicts(part: Any) -> Iterator[dict]:
    """All dicts of a config."""
    if isinstance(part, dict):
        yield part
        part = part.values()
    elif isinstance(part, Config):
        part = [part._cfg_dict]
    elif not isinstance(part, (list, tuple)):
        return
    for each in part:
        yield from _dicts(each)


def type_name(part: Mapping[str, Any]) -> str:
    """The class that a config dict names, without its scope."""
    kind = part.get('type', '')
    return (kind if isinstance(kind, str) else kind.__name__).rsplit('.', 1)[-1]


def _foreign_name(part: dict) -> str:
    """``kd_det.Class`` if a dict names, as type or constructor, a class of kd_det or mmrazor, else an empty text."""
    for key in ('type', 'constructor'):
        kind = part.get(key)
        if not isinstance(kind, (str, type)):
            continue
        path = kind if isinstance(kind, str) else f'{kind.__module__}.{kind.__qualname__}'
        scope = path.split('.')[0] if '.' in path else str(part.get('_scope_'))
        if scope in ('kd_det', 'mmrazor'):
            return f'{scope}.{path.rsplit(".", 1)[-1]}'
    return ''


def _is_foreign(part: Any) -> bool:
    """Whether a hook or a loop is one of kd_det or mmrazor."""
    return isinstance(part, dict) and bool(_foreign_name(part))


def parse_config_text(text: str) -> Config:
    """Read the config text that mmengine stores in a checkpoint, without running it.

    mmengine executes such a text as Python, which would undo safe loading. It writes nothing but assignments of
    literals and ``dict(...)`` calls, and nothing else is read here.

    Raises:
        CheckpointError: If the text holds anything else.
    """
    names = {'inf': float('inf'), 'nan': float('nan')}

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() if node.id in names:
                return names[node.id]
            case ast.Call(func=ast.Name(id='float'), args=[ast.Constant(value='inf' | 'nan' as name)], keywords=[]):
                return names[name]
            case ast.UnaryOp(op=ast.USub()):
                return -value(node.operand)
            case ast.List():
                return [value(item) for item in node.elts]
            case ast.Tuple():
                return tuple(value(item) for item in node.elts)
            case ast.Set():
                return {value(item) for item in node.elts}
            case ast.Dict():
                return {value(k): value(v) for k, v in zip(node.keys, node.values)}
            case ast.Call(func=ast.Name(id='dict'), args=[]) if all(k.arg for k in node.keywords):
                return {k.arg: value(k.value) for k in node.keywords}
        raise CheckpointError(
            f'meta.cfg of the checkpoint holds {ast.unparse(node)[:60]!r}, expected literals only; '
            'it was not run. Give the config with --config.'
        )

    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise CheckpointError(
            f'meta.cfg of the checkpoint is not a config ({error}); give it with --config.'
        ) from error
    found = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = value(statement.value)
            case _:
                raise CheckpointError(
                    f'meta.cfg of the checkpoint holds {ast.unparse(statement)[:60]!r}, expected '
                    'assignments only; it was not run. Give the config with --config.'
                )
    return Config(found)


def config_text(cfg: Config) -> str:
    """The text of a config that mmengine can read back: it prints infinity as ``inf``, a name that does not exist."""
    lines = cfg.pretty_text.splitlines()
    found = [
        node
        for node in ast.walk(ast.parse('\n'.join(lines)))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in ('inf', 'nan')
    ]
    for node in sorted(found, key=lambda n: -n.col_offset):
        line = lines[node.lineno - 1].encode()  # ast counts bytes
        start, end = line[: node.col_offset], line[node.col_offset + 3 :]
        lines[node.lineno - 1] = (start + f"float('{node.id}')".encode() + end).decode()
    return '\n'.join(lines) + '\n'


# --- writing ----------------------------------------------------------------------------------------------------------


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """A temporary path in the folder of ``target`` that becomes ``target`` if the block ends well, else vanishes."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f'.{target.name}.', suffix='.part')
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open('rb+') as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def export_student(
    checkpoint: Mapping[str, Any],
    out: str | Path,
    cfg: Config | None = None,
    source: str | None = None,
    add_hash: bool = False,
    config_out: str | Path | None = None,
) -> Path:
    """Write the student of a checkpoint as a plain mmdet checkpoint.

    The file holds ``state_dict`` and ``meta``: the classes (``dataset_meta``), the plain config of the student as text
    (``cfg``), epoch and iteration, where it came from (``source``) and the versions that wrote it. Optimiser,
    message hub, teacher, adapters and the second copy of EMA stay out. It appears under its name only when complete.

    Args:
        checkpoint: What :func:`load_checkpoint_safely` returns.
        out: The file to write.
        cfg: The config of the training, if not the one in the checkpoint.
        source: Where the checkpoint came from, noted in the meta.
        add_hash: Add the first eight digits of the file's SHA-256 to the name, as mmdet's published files have.
        config_out: Where to write the student's plain mmdet config, too.

    Returns:
        The path written.

    Raises:
        CheckpointError: If there is no student in the checkpoint.
        ConfigError: If a file cannot be written, or the config is asked for and not known.
    """
    import mmdet
    import mmengine

    from kd_det.version import __version__

    out = Path(out)
    weights = student_state_dict(checkpoint)
    for name, value in weights.items():
        weights[name] = value.detach().cpu().clone()
    if not weights:
        raise CheckpointError(
            f'checkpoint: {source!r} holds no weights of a student ({_some(list(checkpoint.get("state_dict", ())))}).'
        )
    old = dict(checkpoint.get('meta') or {})
    if cfg is None and isinstance(old.get('cfg'), str):
        cfg = parse_config_text(old['cfg'])
        cfg = cfg if isinstance(cfg.get('model'), dict) else None  # a runner that was given a built model notes none
    meta = {
        key: old[key]
        for key in ('dataset_meta', 'CLASSES', 'PALETTE', 'epoch', 'iter', 'seed', 'experiment_name', 'time')
        if key in old
    }
    if cfg is not None:
        meta['cfg'] = config_text(student_config(cfg))
    elif config_out is not None:
        raise ConfigError(f'config_out: {str(config_out)!r}; the checkpoint holds no config. Give it with --config.')
    meta['source'] = dict(
        file=os.path.basename(source) if source else None,
        kind=checkpoint_kind(checkpoint.get('state_dict', checkpoint)),
    )
    meta['versions'] = dict(
        kd_det=__version__, mmdet=mmdet.__version__, mmengine=mmengine.__version__, torch=str(torch.__version__)
    )
    meta['mmengine_version'] = mmengine.__version__
    buffer = io.BytesIO()
    torch.save(dict(meta=meta, state_dict=weights), buffer)
    if add_hash:
        digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:8]
        out = out.with_name(f'{out.stem}-{digest}{out.suffix or ".pth"}')
    try:
        for path, content in ((out, buffer.getbuffer()), (config_out, meta.get('cfg', '').encode())):
            if path is not None:
                with atomic_path(path) as temporary:
                    temporary.write_bytes(content)
    except OSError as error:
        raise ConfigError(f'out: {str(path)!r} cannot be written ({error.strerror or error}).') from error
    return out
