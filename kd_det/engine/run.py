"""Training and testing as the command-line tools do it. mmengine's runner does the work."""

from __future__ import annotations

import copy
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from kd_det import compat
from kd_det.checkpoint import latest_checkpoint, load_checkpoint_safely, load_student, student_config
from kd_det.engine.config import load_config
from kd_det.engine.preflight import check_teacher_file, check_test, check_train
from kd_det.errors import ConfigError, KDDetError, did_you_mean


def guarded(main: Callable[[Sequence[str] | None], object], argv: Sequence[str] | None = None) -> int:
    """Run a command line; print an error about the user's input as one line and return 2.

    ``KD_DET_TRACEBACK=1`` in the environment shows the traceback instead.

    Returns:
        The exit status.
    """
    try:
        main(argv)
        return 0
    except Exception as error:
        text = _user_error(error)
        if text is None or os.environ.get('KD_DET_TRACEBACK', '0') not in ('', '0'):
            raise
        if os.environ.get('LOCAL_RANK', '0') == '0':
            print(f'error: {text}', file=sys.stderr, flush=True)
        elif torch.distributed.is_available() and torch.distributed.is_initialized():
            # perhaps no other process met it
            print(f'[process {torch.distributed.get_rank()}] error: {text}', file=sys.stderr, flush=True)
        return 2


def _user_error(error: BaseException | None) -> str | None:
    """The text for the user, if this error, or the one that caused it, is about their input."""
    while error is not None:
        if isinstance(error, KDDetError):
            return str(error)
        unknown = re.match(r"'(\S+) is not in the (\S+)::(.+?) registry", str(error))
        if isinstance(error, KeyError) and unknown:
            name, scope, kind = unknown.groups()
            return f'type: {name!r} is not a {kind} of {scope!r}.{did_you_mean(name, _registered(kind))}'
        error = error.__cause__
    return None


def _registered(kind: str) -> list[str]:
    """All names of one kind in mmengine's registries and their children, with their scopes."""
    import mmengine.registry as registries

    names, queue = [], [r for r in vars(registries).values() if isinstance(r, registries.Registry) and r.name == kind]
    while queue:
        registry = queue.pop()
        names += list(registry.module_dict) + [f'{registry.scope}.{name}' for name in registry.module_dict]
        queue += registry.children.values()
    return names


def _work_dir(cfg: Config, args: Namespace) -> str:
    """``--work-dir``, else the config's own, else ``work_dirs/<name of the config>``."""
    return args.work_dir or cfg.get('work_dir') or os.path.join('work_dirs', Path(args.config).stem)


def _scope(cfg: Config) -> None:
    """mmdet's scope where a config names none, so that its names resolve without a prefix."""
    if not cfg.get('default_scope'):
        cfg.default_scope = 'mmdet'


def _build(cfg: Config) -> Runner:
    return Runner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)


def prepare_train(args: Namespace) -> Config:
    """The complete config of a training run, checked. See ``tools/train.py`` for the arguments.

    Raises:
        KDDetError: For whatever is wrong with the arguments, the config, the data or the checkpoints.
    """
    cfg = load_config(args.config, args.cfg_options)
    _scope(cfg)
    cfg.launcher = args.launcher
    cfg.work_dir = _work_dir(cfg, args)
    if args.amp:
        kind = cfg.get('optim_wrapper', {}).get('type', 'OptimWrapper')
        if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise ConfigError(f"--amp: optim_wrapper.type is {kind!r}; expected 'OptimWrapper' or 'AmpOptimWrapper'.")
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
            raise ConfigError(
                f'--auto-scale-lr: auto_scale_lr is {cfg.get("auto_scale_lr")!r}; expected '
                'dict(base_batch_size=<images per step that the learning rate is meant for>).'
            )
        cfg.auto_scale_lr.enable = True
    resume = latest_checkpoint(cfg.work_dir) if args.resume == 'auto' else args.resume
    if resume is not None:  # a first run with --resume, which finds nothing, begins from the config's load_from
        cfg.resume, cfg.load_from = True, resume
    check_train(cfg)
    return cfg


def run_train(cfg: Config) -> Runner:
    """Train. Files appear whole, and the process group that was started here is ended here.

    Args:
        cfg: From :func:`prepare_train`.

    Returns:
        The runner, after training.

    Raises:
        CheckpointError: If a teacher's local checkpoint is missing or damaged.
    """
    check_teacher_file(cfg)
    compat.register_atomic_local_backend()
    started = compat.init_cpu_distributed(cfg)
    try:
        runner = _build(cfg)
        runner.train()
        return runner
    finally:
        if started:
            torch.distributed.destroy_process_group()


def prepare_test(args: Namespace) -> Config:
    """The complete config of a test run, checked: of a distillation config the student alone remains.

    Raises:
        KDDetError: For whatever is wrong with the arguments, the config or the data.
    """
    cfg = student_config(load_config(args.config, args.cfg_options))
    _scope(cfg)
    cfg.launcher = args.launcher
    cfg.work_dir = _work_dir(cfg, args)
    cfg.load_from, cfg.resume = None, False  # run_test loads, and accepts what mmengine cannot read
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        raise ConfigError(f'--out: {args.out!r}; expected a name that ends in .pkl or .pickle.')
    if args.show or args.show_dir:
        from mmdet.engine.hooks.utils import trigger_visualization_hook

        if 'visualization' not in cfg.get('default_hooks', {}):
            raise ConfigError(
                "--show: default_hooks.visualization is missing; expected dict(type='DetVisualizationHook')."
            )
        cfg = trigger_visualization_hook(cfg, args)
    check_test(cfg)
    if args.tta:
        _add_tta(cfg)
    return cfg


def _add_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation: the config's own, else with and without a horizontal flip."""
    tta_model = cfg.get('tta_model') or ConfigDict(
        type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)
    )
    innermost = cfg.test_dataloader.dataset
    while 'dataset' in innermost:
        innermost = innermost.dataset
    pipeline = cfg.get('tta_pipeline')
    if not pipeline:
        pack = dict(
            type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'),
        )
        views = [[dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)], [pack]]
        pipeline = [*copy.deepcopy(innermost.pipeline[:-1]), dict(type='TestTimeAug', transforms=views)]
    innermost.pipeline = pipeline
    cfg.model = ConfigDict(**tta_model, module=cfg.model)


def run_test(cfg: Config, checkpoint: str, out: str | None = None) -> dict[str, float]:
    """Test a checkpoint of any kind: kd_det, mmrazor, plain mmdet, or an exported student.

    Args:
        cfg: From :func:`prepare_test`.
        checkpoint: Path or URL.
        out: Where to dump the predictions, a pickle file.

    Returns:
        The metrics.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not fit the model.
    """
    loaded = load_checkpoint_safely(checkpoint)
    started = compat.init_cpu_distributed(cfg)
    try:
        runner = _build(cfg)
        extra = load_student(runner.model, loaded, checkpoint)
        if extra:
            print_log(
                f'{checkpoint} holds {len(extra)} weights that the model does not have, such as {extra[0]}',
                logger='current',
            )
        if out is not None:
            from mmdet.evaluation import DumpDetResults

            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=out))
        return runner.test()
    finally:
        if started:
            torch.distributed.destroy_process_group()
