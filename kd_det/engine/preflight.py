"""What can be known to be wrong before anything is built: told in one line, with nothing written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from kd_det.checkpoint import check_file, checkpoint_kind, load_checkpoint_safely, type_name
from kd_det.detectors.teacher import named_teachers
from kd_det.errors import CheckpointError, ConfigError, DataError, did_you_mean


def check_train(cfg: Config) -> None:
    """Check a config before training: model, data of training and validation, work folder, checkpoint, AMP.

    Raises:
        ConfigError: If a key of the config is wrong.
        DataError: If an annotation file or an image folder is missing.
        CheckpointError: If ``load_from`` cannot be loaded.
    """
    check_model(cfg)
    for name in ('train_cfg', 'train_dataloader', 'optim_wrapper'):
        if not cfg.get(name):
            raise ConfigError(
                f'{name}: {cfg.get(name)!r}; expected a dict. The config cannot be trained.'
                f'{did_you_mean(name, [k for k in cfg if k != name])}'
            )
    _check_schedules(cfg)
    check_data(cfg, 'train')
    _check_classes(cfg)
    if cfg.get('val_cfg'):
        check_data(cfg, 'val')
    _check_amp(cfg)
    check_work_dir(cfg.work_dir)
    if cfg.get('load_from'):
        _check_start(cfg)


def _check_start(cfg: Config) -> None:
    """Check the checkpoint that training starts or continues from: mmengine only warns of a misfit."""
    key = 'resume' if cfg.get('resume') else 'load_from'
    checkpoint = load_checkpoint_safely(cfg.load_from, key=key)
    kind = checkpoint_kind(checkpoint['state_dict'])
    distils = type_name(cfg.model) in ('DistillDetector', 'ParaphraserTrainer')
    if distils and kind == 'mmrazor':
        raise CheckpointError(
            f'{key}: {cfg.load_from!r} was written by mmrazor; expected one of kd_det, or of a plain student: take the '
            'student out of it with tools/export_student.py.'
        )
    if not distils and kind == 'kd_det':
        raise CheckpointError(
            f'{key}: {cfg.load_from!r} holds a distillation, and the config a plain '
            f'{type_name(cfg.model)}; take the student out of it with tools/export_student.py.'
        )
    meta = checkpoint.get('meta') or {}
    # mmengine runs meta.config, a text that mmdet 2 wrote, as Python; nothing that mmengine itself saved has one
    if key == 'resume' and ('message_hub' not in checkpoint or 'epoch' not in meta or 'config' in meta):
        raise CheckpointError(
            f'resume: {cfg.load_from!r} holds weights but not the state of a training; expected '
            "'optimizer', 'message_hub' and 'param_schedulers' in it. To start anew from these weights, "
            'use --cfg-options load_from=… instead.'
        )


def check_test(cfg: Config) -> None:
    """Check a config before testing: model, data, metric, work folder.

    Raises:
        ConfigError: If a key of the config is wrong.
        DataError: If an annotation file or an image folder is missing.
    """
    check_model(cfg)
    for name in ('test_cfg', 'test_dataloader', 'test_evaluator'):
        if cfg.get(name) is None:
            raise ConfigError(f'{name}: None; expected a dict. The config cannot be tested.')
    check_data(cfg, 'test')
    check_work_dir(cfg.work_dir)


def check_model(cfg: Config) -> None:
    """Check that a config defines a model, and a distillation config its student, teacher and terms.

    Raises:
        ConfigError: With the key that is missing.
    """
    model = cfg.get('model')
    if not isinstance(model, dict) or 'type' not in model:
        raise ConfigError(f"model: {model!r}; expected a dict with 'type'. The config defines no detector.")
    if type_name(model) != 'DistillDetector':
        return
    teacher = model.get('teacher')
    if not isinstance(teacher, dict) or not teacher:
        terms = (model.get('distill') or {}).values() if isinstance(model.get('distill'), dict) else ()
        alone = all('student:' in str(term.get('teacher')) for term in terms if isinstance(term, dict))
        if teacher is not None or not terms or not alone:
            raise ConfigError(
                f'model.teacher: {teacher!r}; expected dict(config=<name, path or dict>, checkpoint=<path or URL>).'
                f'{did_you_mean("teacher", [k for k in model if k != "teacher"])}'
            )
    for name, what in (
        ('student', 'the config of an mmdet detector'),
        ('distill', 'a dict of terms'),
    ):
        if not isinstance(model.get(name), dict) or not model[name]:
            raise ConfigError(
                f'model.{name}: {model.get(name)!r}; expected {what}.'
                f'{did_you_mean(name, [k for k in model if k != name])}'
            )
    for name, one in named_teachers(teacher).items():
        if one is not None and not one.get('config') and not one.get('ema'):
            key = f'model.teacher{"." * bool(name)}{name}.config'
            raise ConfigError(
                f"{key}: {one.get('config')!r}; expected the name, path or dict of the teacher's mmdet config."
                f'{did_you_mean("config", [k for k in one])}'
            )
    known = ('type', 'student', 'teacher', 'distill', 'inherit', 'task_weights', 'data_preprocessor', 'init_cfg')
    for key in model:
        if key not in (*known, '_scope_', 'train_cfg', 'test_cfg'):
            raise ConfigError(f'model: unknown key {key!r}; expected {", ".join(known)}.{did_you_mean(key, known)}')


def check_teacher_file(cfg: Config) -> None:
    """Check that the local checkpoints of teachers, and of the paraphrasers of factor transfer, are there, before
    anything is built.

    Raises:
        CheckpointError: If one is missing, truncated or no checkpoint.
    """
    if type_name(cfg.model) not in ('DistillDetector', 'ParaphraserTrainer'):
        return
    files = {}
    for name, one in named_teachers(cfg.model.get('teacher')).items():
        files[f'model.teacher{"." * bool(name)}{name}.checkpoint'] = isinstance(one, dict) and one.get('checkpoint')
    for name, term in (cfg.model.get('distill') or {}).items():
        loss = term.get('loss') if isinstance(term, dict) else None
        files[f'model.distill.{name}.loss.paraphraser'] = isinstance(loss, dict) and loss.get('paraphraser')
    for key, source in files.items():
        if isinstance(source, str) and '://' not in source:
            check_file(Path(source).expanduser(), key)


def _check_classes(cfg: Config) -> None:
    """The student predicts as many classes as the training set has: another number trains without a word."""
    from mmdet.registry import DATASETS

    model = cfg.model.student if type_name(cfg.model) == 'DistillDetector' else cfg.model
    second = (model.get('roi_head') or {}).get('bbox_head')
    heads = [('bbox_head', model.get('bbox_head')), ('roi_head.bbox_head', second)]
    loader = cfg.train_dataloader
    for key, dataset in _leaves(loader.get('dataset') or {}, 'train_dataloader.dataset'):
        classes = (dataset.get('metainfo') or {}).get('classes')
        if classes is None:
            found = DATASETS.get(dataset.get('type')) if isinstance(dataset.get('type'), str) else dataset.get('type')
            classes = (getattr(found, 'METAINFO', None) or {}).get('classes')
        if not isinstance(classes, (list, tuple)):
            continue
        for name, head in heads:
            for part in head if isinstance(head, (list, tuple)) else [head]:
                number = part.get('num_classes') if isinstance(part, dict) else None
                if isinstance(number, int) and number != len(classes):
                    where = 'model.student' if type_name(cfg.model) == 'DistillDetector' else 'model'
                    raise ConfigError(
                        f'{where}.{name}.num_classes: found {number}, but {key} has {len(classes)} classes '
                        f'({", ".join(map(str, classes[:4]))}{", …" if len(classes) > 4 else ""}); expected as many.'
                    )


def _check_schedules(cfg: Config) -> None:
    """Nothing moves a schedule or an average without its hook: a term that begins late would stay off for ever."""
    hooks = [*(cfg.get('custom_hooks') or []), *(cfg.get('default_hooks') or {}).values()]
    hooks = {type_name(hook) for hook in hooks if isinstance(hook, dict)}
    if type_name(cfg.model) == 'DistillDetector' and 'EMATeacherHook' not in hooks:
        for name, one in named_teachers(cfg.model.get('teacher')).items():
            if isinstance(one, dict) and one.get('ema'):
                raise ConfigError(
                    f'custom_hooks: no EMATeacherHook in it, which model.teacher{"." * bool(name)}{name} with ema=True '
                    "needs; expected dict(type='kd_det.EMATeacherHook') beside your own hooks."
                )
    _check_instance_ids(cfg, hooks)
    if 'TermScheduleHook' in hooks or type_name(cfg.model) not in ('DistillDetector', 'ParaphraserTrainer'):
        return
    for name, term in cfg.model.get('distill', {}).items():
        if not isinstance(term, dict):
            continue
        needs = f'schedule={term.schedule}' if term.get('schedule') else _curriculum(term)
        if needs:
            raise ConfigError(
                f'custom_hooks: no TermScheduleHook in it, which model.distill.{name}.{needs} needs; '
                "expected dict(type='kd_det.TermScheduleHook') beside your own hooks."
            )


def _check_instance_ids(cfg: Config, hooks: set[str]) -> None:
    """A memory of instances is filled by their ids, which a hook gives."""
    for name, term in cfg.model.get('distill', {}).items() if type_name(cfg.model) == 'DistillDetector' else ():
        loss = term.get('loss') if isinstance(term, dict) else None
        if isinstance(loss, dict) and type_name(loss) == 'CRDLoss' and loss.get('n_data') is None:
            if 'InstanceIdHook' not in hooks:
                raise ConfigError(
                    f'custom_hooks: no InstanceIdHook in it, which model.distill.{name}.loss=CRDLoss needs; '
                    "expected dict(type='kd_det.InstanceIdHook') beside your own hooks."
                )


def _curriculum(part: Mapping[str, Any]) -> str:
    """Where in a term a learnt temperature is, such as ``'loss.T=CurriculumTemperature'``; empty if there is none."""
    for key, value in part.items():
        if isinstance(value, dict):
            inside = _curriculum(value)
            if type_name(value) == 'CurriculumTemperature':
                return f'{key}=CurriculumTemperature'
            if inside:
                return f'{key}.{inside}'
    return ''


def _check_amp(cfg: Config) -> None:
    from mmengine.device import get_device

    if str(cfg.optim_wrapper.get('type', '')).rsplit('.', 1)[-1] == 'AmpOptimWrapper' and get_device() == 'cpu':
        raise ConfigError(
            "optim_wrapper.type: 'AmpOptimWrapper' (--amp) needs a GPU, and there is none; expected 'OptimWrapper'."
        )


def check_data(cfg: Config, split: str) -> None:
    """Check that the files of one split exist: annotation files and image folders of every data set of it.

    Args:
        cfg: The config.
        split: ``'train'``, ``'val'`` or ``'test'``.

    Raises:
        DataError: With the key, the path, and what is near it.
    """
    loader = cfg.get(f'{split}_dataloader')
    if isinstance(loader, dict) and isinstance(loader.get('dataset'), dict):
        for key, dataset in _leaves(loader['dataset'], f'{split}_dataloader.dataset'):
            _check_dataset(key, dataset)
    evaluator = cfg.get(f'{split}_evaluator') or []
    single = isinstance(evaluator, dict)
    for index, metric in enumerate([evaluator] if single else evaluator):
        if isinstance(metric, dict) and isinstance(metric.get('ann_file'), str):
            _check_exists(
                f'{split}_evaluator{"" if single else f"[{index}]"}.ann_file', metric['ann_file'], 'annotation file'
            )


def _leaves(dataset: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The data sets inside wrappers such as RepeatDataset (``dataset``) and ConcatDataset (``datasets``)."""
    inner = dataset.get('dataset')
    if isinstance(inner, dict):
        yield from _leaves(inner, f'{key}.dataset')
    several = dataset.get('datasets')
    if isinstance(several, (list, tuple)):
        for index, part in enumerate(several):
            yield from _leaves(part, f'{key}.datasets[{index}]')
    if not isinstance(inner, dict) and not isinstance(several, (list, tuple)):
        yield key, dataset


def _check_dataset(key: str, dataset: Mapping[str, Any]) -> None:
    if (dataset.get('backend_args') or {}).get('backend', 'local') != 'local':
        return
    root = dataset.get('data_root') or ''

    def joined(path: str) -> str:
        return path if not root or os.path.isabs(path) or '://' in path else os.path.join(root, path)

    if root and '://' not in root and not os.path.isdir(root):
        _check_exists(f'{key}.data_root', root, 'folder')
    files = dataset.get('ann_file') or []
    for path in [files] if isinstance(files, str) else files:
        _check_exists(f'{key}.ann_file', joined(path), 'annotation file')
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        if not isinstance(prefix, str):
            continue
        folder = joined(prefix) if prefix else root
        if folder:
            _check_exists(f'{key}.data_prefix.{name}', folder, 'image folder')
        if name == 'sub_data_root' and folder:  # Pascal VOC: images and annotations lie side by side below it
            for option, default in (('img_subdir', 'JPEGImages'), ('ann_subdir', 'Annotations')):
                _check_exists(f'{key}.{option}', os.path.join(folder, dataset.get(option, default)), 'folder')


def _check_exists(key: str, path: str, what: str) -> None:
    if '://' in path:
        return
    wanted = Path(path)
    if what == 'annotation file':
        if wanted.is_file() and wanted.stat().st_size > 0:
            return
        problem = 'is empty' if wanted.is_file() else 'does not exist'
    else:
        if wanted.is_dir():
            return
        problem = 'is not a folder' if wanted.exists() else 'does not exist'
    parent = wanted.parent
    while not parent.exists():
        parent = parent.parent
    missing = wanted.relative_to(parent).parts[0] if parent in wanted.parents else wanted.name
    try:
        near = did_you_mean(missing, [p.name for p in parent.iterdir()])
    except OSError:
        near = ''
    where = f' {str(parent)!r} exists; {missing!r} is not in it.' if wanted.parent != parent else ''
    raise DataError(f'{key}: {what} {path!r} {problem}.{where}{near}')


def check_work_dir(work_dir: str | Path) -> None:
    """Create the work folder and check that files can be written into it.

    Raises:
        ConfigError: If not.
    """
    try:
        Path(work_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir):
            pass
    except OSError as error:
        raise ConfigError(
            f'work_dir: {str(work_dir)!r} cannot be written ({error.strerror or error}); give another one '
            'with --work-dir.'
        ) from error
