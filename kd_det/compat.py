"""Every work-around for a third-party version, and nothing else.

Each part names the versions it is for, the upstream issue or the line at fault, and the test in
``tests/test_compat.py`` that fails once the part is no longer needed, so that it can be deleted.

=====================================  =============================  ================================================
part                                   for                            reason
=====================================  =============================  ================================================
:class:`_QuantizationFinder`           mmrazor 1.0.0, torch >= 2      ``import mmrazor.models`` fails (#615, #632)
:func:`soft_cross_entropy`             mmrazor 1.0.0, no mmcls        ``KDSoftCELoss`` has a placeholder for it
:func:`rename_mmdet_configs`           mmrazor 1.0.0, mmdet >= 3      CWD configs name files as mmdet 2 did
:data:`SAFE_GLOBALS`                   mmengine <= 0.10.7,            training checkpoints hold ``HistoryBuffer``
                                       torch >= 2.6                   (#1655)
:func:`register_checkpoint_schemes`    mmengine <= 0.10.7             URLs are unpickled with ``weights_only=False``;
                                                                      ``torchvision://`` imports torchvision
:func:`register_atomic_local_backend`  mmengine <= 0.10.7             a kill while saving leaves half a file
:func:`init_cpu_distributed`           mmengine <= 0.10.7             ``init_dist`` calls ``torch.cuda.set_device``
:func:`fill_uninitialised`             mmdet <= 3.3.0                 DETRs and SSD hold uninitialised memory
                                                                      until ``init_weights``
:func:`let_ssd_predict`                mmdet 3.3.0                    ``SSDHead`` cannot predict (#11063)
=====================================  =============================  ================================================

:func:`install` is called by ``import kd_det``. It imports no part of mmrazor and changes nothing that works by itself.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlparse

import mmengine
import numpy as np
import torch
from mmengine.fileio.backends import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer
from mmengine.utils import digit_version

from kd_det.errors import CheckpointError, ConfigError, did_you_mean

QUANTIZATION = 'mmrazor.structures.quantization'


# --------------------------------------------------------------------------------------------------------------------
# mmrazor 1.0.0 on torch >= 2. Its quantisation tables are built at import time from torch.ao and torch.nn names that
# moved in torch 2, and `mmrazor.structures` imports them whether or not anybody quantises, so that losses, connectors
# and recorders cannot be imported either (open-mmlab/mmrazor #615 and #632).
# Test: test_mmrazor_still_needs_the_stand_in.


def _quantization_error(cause: BaseException | None, name: str) -> ImportError:
    error = ImportError(
        f'{QUANTIZATION}.{name} is not available: the quantisation part of mmrazor does not import on torch '
        f'{torch.__version__} ({type(cause).__name__}: {cause}); it needs torch 1.13. Distillation, pruning and search '
        'are not affected.'
    )
    error.__cause__ = cause
    return error


def _stand_in(name: str, cause: BaseException) -> type:
    """A class that can be imported, named in annotations and given to ``isinstance``, and raises in any other use."""

    def refuse(*args, **kwargs):
        raise _quantization_error(cause, name)

    def missing_attribute(cls, attribute: str):
        if attribute.startswith('__'):  # what Python itself asks for (copy, inspect, abc)
            raise AttributeError(attribute)
        refuse()

    meta = type(
        '_StandInMeta',
        (type,),
        {'__call__': refuse, '__getitem__': refuse, '__iter__': refuse, '__getattr__': missing_attribute},
    )
    return meta(
        name,
        (),
        {
            '__module__': QUANTIZATION,
            '__doc__': str(_quantization_error(cause, name)),
            '__init_subclass__': classmethod(refuse),
        },
    )


class _QuantizationLoader(importlib.abc.Loader):
    """Runs the real module; if that fails, turns it into a module whose names are stand-ins."""

    def __init__(self, real: importlib.abc.Loader):
        self.real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.real.exec_module(module)
            return
        except Exception as error:  # whatever it is, it must not take the rest of mmrazor with it
            cause = error
        for name in [n for n in sys.modules if n.startswith(QUANTIZATION + '.')]:
            del sys.modules[name]
        for name in [n for n in vars(module) if not n.startswith('__')]:
            delattr(module, name)

        def module_getattr(name: str) -> type:
            if name.startswith('__'):
                raise AttributeError(name)
            setattr(module, name, _stand_in(name, cause))
            return getattr(module, name)

        module.__all__ = []
        module.__kd_det_cause__ = cause
        module.__getattr__ = module_getattr


class _QuantizationFinder(importlib.abc.MetaPathFinder):
    """Finds :mod:`mmrazor.structures.quantization` as Python does, but with :class:`_QuantizationLoader` around it."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None):
        if not fullname.startswith(QUANTIZATION):
            return None
        if fullname == QUANTIZATION:
            spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _QuantizationLoader(spec.loader)
            return spec
        cause = getattr(sys.modules.get(QUANTIZATION), '__kd_det_cause__', None)
        if cause is not None:
            raise _quantization_error(cause, fullname[len(QUANTIZATION) + 1 :])
        return None


def import_mmrazor() -> ModuleType:
    """Import mmrazor in full: models (losses, connectors, recorders, distillers), hooks and loops.

    After it every ``mmrazor.X`` of a config resolves. Takes about a second; later calls cost nothing.

    Returns:
        The module ``mmrazor``.

    Raises:
        ConfigError: If mmrazor, or a package that it needs, is not installed.
    """
    install()
    try:
        for part in ('models', 'engine', 'datasets', 'implementations', 'structures', 'visualization'):
            importlib.import_module(f'mmrazor.{part}')
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'mmrazor cannot be imported: the package {error.name!r} is not installed. '
            'Install what kd_det needs with `pip install -r requirements/runtime.txt`.'
        ) from error
    except AssertionError as error:  # its own check of the versions of mmcv and mmengine
        raise ConfigError(f'mmrazor refuses the installed versions: {error}') from error
    losses = sys.modules['mmrazor.models.losses.kd_soft_ce_loss']
    if isinstance(losses.soft_cross_entropy, type):  # a placeholder, which fails when it is called
        losses.soft_cross_entropy = soft_cross_entropy
    return sys.modules['mmrazor']


# --------------------------------------------------------------------------------------------------------------------
# mmrazor's KDSoftCELoss takes its cross entropy from mmcls, which mmdet does not need and mmpretrain has replaced.
# Test: test_soft_cross_entropy_still_is_a_placeholder.


def soft_cross_entropy(
    pred: torch.Tensor,
    label: torch.Tensor,
    weight: torch.Tensor | None = None,
    reduction: str | None = 'mean',
    avg_factor: Any = None,
) -> torch.Tensor:
    """Cross entropy of scores and probabilities of classes.

    Args:
        pred: Scores, shape (N, C).
        label: Probabilities, shape (N, C).
        weight: Of each row, shape (N,).
        reduction: ``'none'`` (or None), ``'mean'`` or ``'sum'``.
        avg_factor: Divides the sum, in place of the number of rows.
    """
    from mmdet.models.losses.utils import weight_reduce_loss

    rows = -(label * pred.log_softmax(-1)).sum(-1)
    return weight_reduce_loss(rows, weight, reduction or 'none', avg_factor)


# --------------------------------------------------------------------------------------------------------------------
# mmrazor's CWD configs call `mmdet::faster_rcnn/faster_rcnn_r50_fpn_1x_coco.py`. Since mmdet 3.0 the file is
# `faster-rcnn_r50_fpn_1x_coco.py`. Test: test_mmrazor_cwd_config_still_names_a_file_that_mmdet_does_not_have.


def rename_mmdet_configs(cfg: Any) -> list[tuple[str, str]]:
    """Replace, in place, mmdet-2 spellings of mmdet config files in all values of a config.

    Only a value that begins with ``mmdet::``, has no file, and equals exactly one existing file when ``_`` and ``-``
    count as the same is touched.

    Args:
        cfg: A ``Config``, or any nesting of dicts and lists.

    Returns:
        The (old, new) names, for the log.
    """
    renamed = []

    def walk(node: Any) -> None:
        items: Iterator = iter(())
        if isinstance(node, dict):
            items = iter(list(node.items()))
        elif isinstance(node, list):
            items = iter(list(enumerate(node)))
        for key, value in items:
            if isinstance(value, str) and value.startswith('mmdet::'):
                new = _existing_mmdet_config(value)
                if new != value:
                    node[key] = new
                    renamed.append((value, new))
            else:
                walk(value)

    walk(cfg._cfg_dict if isinstance(cfg, mmengine.Config) else cfg)
    return renamed


def _existing_mmdet_config(name: str) -> str:
    root = Path(importlib.util.find_spec('mmdet').origin).parent / '.mim' / 'configs'
    wanted = root / name.removeprefix('mmdet::')
    if wanted.exists() or not wanted.parent.is_dir():
        return name
    plain = wanted.name.replace('-', '_')
    same = [path for path in wanted.parent.glob('*.py') if path.name.replace('-', '_') == plain]
    return f'mmdet::{same[0].relative_to(root).as_posix()}' if len(same) == 1 else name


# --------------------------------------------------------------------------------------------------------------------
# Checkpoints of mmengine <= 0.10.7 under torch >= 2.6, which loads with weights_only=True (open-mmlab/mmengine #1655;
# the open #1650 would turn that off). The message hub of a training checkpoint holds HistoryBuffer objects, and these
# hold numpy arrays and the names of four of their own methods. Nothing in the list runs code, opens a file or imports
# a module.
# Test: test_mmengine_checkpoint_still_needs_the_allow_list.


class _OneCycleNames:
    """Stands for ``OneCycleParamScheduler`` in a pickle, where only a function of it is named."""


def _named_function(owner: Any, name: str) -> Callable:
    """What ``getattr`` means in a checkpoint: one of the few functions that mmengine's own objects refer to."""
    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    if owner is _OneCycleNames and name in ('_annealing_cos', '_annealing_linear'):
        from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

        return getattr(OneCycleParamScheduler, name)
    raise pickle.UnpicklingError(
        f'Unsupported global: GLOBAL {getattr(owner, "__name__", owner)}.{name} is not in the allow-list of kd_det'
    )


def _safe_globals() -> list[Any]:
    multiarray = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    dtype_classes = {type(np.dtype(char)) for char in np.typecodes['All'] + 'SU'} - {np.dtype}
    listed: list[Any] = [HistoryBuffer, mmengine.ConfigDict, np.ndarray, np.dtype, *sorted(dtype_classes, key=repr)]
    for core in ('numpy.core', 'numpy._core'):  # written by numpy 1 and by numpy 2
        listed += [
            (multiarray._reconstruct, f'{core}.multiarray._reconstruct'),
            (multiarray.scalar, f'{core}.multiarray.scalar'),
        ]
    listed += [
        (_named_function, 'builtins.getattr'),
        (_OneCycleNames, 'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler'),
    ]
    return listed


#: What a checkpoint of mmengine may hold besides tensors and plain Python values.
SAFE_GLOBALS: list[Any] = _safe_globals()


def allow_mmengine_checkpoints() -> None:
    """Let ``torch.load(..., weights_only=True)`` read checkpoints of mmengine (:data:`SAFE_GLOBALS`)."""
    if digit_version(torch.__version__) >= digit_version('2.6.0'):
        torch.serialization.add_safe_globals(SAFE_GLOBALS)


# --------------------------------------------------------------------------------------------------------------------
# mmengine <= 0.10.7 loads URLs through torch.utils.model_zoo.load_url, whose default is weights_only=False on every
# torch, and looks `torchvision://resnet50` up by importing torchvision, though it ships the table of names itself.
# CheckpointLoader.register_scheme is mmengine's own way to replace a loader.
# Tests: test_mmengine_still_unpickles_urls, test_mmengine_still_imports_torchvision_for_its_scheme.


def download(url: str) -> Path:
    """Download ``url`` to torch's checkpoint folder, once, and return the file. Rank 0 fetches, the others wait.

    Raises:
        CheckpointError: If the download fails.
    """
    from mmengine.dist import barrier, is_main_process

    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    target = folder / unquote(os.path.basename(urlparse(url).path))

    def fetch(progress: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(target), progress=progress)
        except OSError as error:  # URLError is one
            raise CheckpointError(
                f'checkpoint: {url} cannot be downloaded ({getattr(error, "reason", error)}); put the '
                f'file into {str(folder)!r}, or give the path of a local copy.'
            ) from error

    try:
        if is_main_process() and not target.exists():
            fetch(progress=sys.stderr.isatty())
    finally:
        barrier()
    if not target.exists():  # a node that does not share the folder
        fetch(progress=False)
    return target


# mmengine logs the part of the name after 'load_from_'
def load_from_http(filename: str, map_location: Any = None) -> Any:
    return torch.load(download(filename), map_location=map_location, weights_only=True)


def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
    return load_from_http(torchvision_url(filename), map_location)


def torchvision_url(filename: str) -> str:
    """The URL behind ``torchvision://<name>``, from the table that mmengine ships."""
    name = filename.split('://', 1)[1]
    table = json.loads((Path(mmengine.__file__).parent / 'hub' / 'torchvision_0.12.json').read_text())
    if name not in table and importlib.util.find_spec('torchvision'):
        from mmengine.runner.checkpoint import get_torchvision_models

        table = get_torchvision_models()  # newer names, such as resnet50.imagenet1k_v2
    if name not in table:
        raise ConfigError(
            f'checkpoint: {filename!r} names no torchvision model that is known without torchvision '
            f'itself.{did_you_mean(name, table)}'
        )
    return table[name]


def load_from_openmmlab(filename: str, map_location: Any = None) -> Any:
    from mmengine.runner.checkpoint import _get_mmengine_home, get_deprecated_model_names, get_external_models

    name = filename.split('://', 1)[1]
    url = get_external_models()[get_deprecated_model_names().get(name, name)]
    if url.startswith(('http://', 'https://')):
        return load_from_http(url, map_location)
    return torch.load(Path(_get_mmengine_home()) / url, map_location=map_location, weights_only=True)


def load_from_mmcls(filename: str, map_location: Any = None) -> Any:
    from mmengine.runner.checkpoint import _process_mmcls_checkpoint, get_mmcls_models

    return _process_mmcls_checkpoint(load_from_http(get_mmcls_models()[filename.split('://', 1)[1]], map_location))


def register_checkpoint_schemes() -> None:
    """Make mmengine load URLs with ``weights_only=True``, and ``torchvision://`` without torchvision."""
    from mmengine.runner import CheckpointLoader

    for prefixes, loader in (
        (['http://', 'https://'], load_from_http),
        (['modelzoo://', 'torchvision://'], load_from_torchvision),
        (['open-mmlab://', 'openmmlab://'], load_from_openmmlab),
        (['mmcls://'], load_from_mmcls),
    ):
        CheckpointLoader.register_scheme(prefixes, loader, force=True)


# --------------------------------------------------------------------------------------------------------------------
# mmengine <= 0.10.7 writes a checkpoint straight into its final file (LocalBackend.put), so that a kill, or a full
# disk, in the midst of it leaves a truncated `epoch_N.pth` and destroys a good one of the same name. register_backend
# is mmengine's own way to replace a backend. Called by the tools, not by `import kd_det`.
# Test: test_mmengine_still_writes_checkpoints_in_place.


class AtomicLocalBackend(LocalBackend):
    """Local files that appear under their name only when they are complete."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj`` beside ``filepath``, flush it to the disk, and rename it.

        Raises:
            OSError: If the folder cannot be written or the disk is full. ``filepath`` is as it was before.
        """
        from kd_det.checkpoint import atomic_path

        with atomic_path(filepath) as temporary:
            Path(temporary).write_bytes(obj)


def register_atomic_local_backend() -> None:
    """Make every file that mmengine writes to a local disk, checkpoints above all, whole or absent."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')


# --------------------------------------------------------------------------------------------------------------------
# mmengine <= 0.10.7: `--launcher pytorch` calls torch.cuda.set_device and wraps the model with device_ids=[LOCAL_RANK],
# both errors on a machine without CUDA. Runner skips init_dist when the process group exists, and a model_wrapper_cfg
# overrides device_ids, so neither needs a patch. Test: test_mmengine_still_sets_a_cuda_device_on_cpu.


def init_cpu_distributed(cfg: mmengine.Config) -> bool:
    """Start torch.distributed over gloo for a launcher on a machine without an accelerator.

    Does nothing when ``cfg.launcher`` is ``'none'`` or an accelerator is there, which mmengine handles.

    Args:
        cfg: The runner's config. ``model_wrapper_cfg`` is set so that DDP places the model on the CPU.

    Returns:
        Whether the process group was started here, so that the caller can destroy it.

    Raises:
        ConfigError: If the launcher did not set the variables that it should have set.
    """
    from mmengine.device import get_device

    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or get_device() != 'cpu':
        return False
    names = {
        'slurm': {'RANK': 'SLURM_PROCID', 'WORLD_SIZE': 'SLURM_NTASKS', 'LOCAL_RANK': 'SLURM_LOCALID'},
        'mpi': {
            'RANK': 'OMPI_COMM_WORLD_RANK',
            'WORLD_SIZE': 'OMPI_COMM_WORLD_SIZE',
            'LOCAL_RANK': 'OMPI_COMM_WORLD_LOCAL_RANK',
        },
    }.get(launcher, {})
    for name, source in names.items():
        if source in os.environ:
            os.environ[name] = os.environ[source]
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ and 'SLURM_NODELIST' in os.environ:
        nodes = subprocess.run(
            ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']], capture_output=True, text=True, check=True
        ).stdout.split()
        os.environ['MASTER_ADDR'] = nodes[0]
    os.environ.setdefault('MASTER_PORT', os.environ.get('PORT', '29500'))
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR') if name not in os.environ]
    if missing:
        raise ConfigError(
            f'--launcher {launcher}: the environment variables {", ".join(missing)} are not set; '
            'start the run with tools/dist_train.sh, tools/slurm_train.sh or torchrun.'
        )

    wrapper = dict(
        cfg.get('model_wrapper_cfg')
        or dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    )
    wrapper.setdefault('device_ids', None)
    cfg.model_wrapper_cfg = wrapper
    if torch.distributed.is_initialized():
        return False
    torch.distributed.init_process_group('gloo')
    return True


# --------------------------------------------------------------------------------------------------------------------
# mmdet <= 3.3.0 makes some parameters as torch.Tensor(sizes), whatever the memory holds, until init_weights or a
# checkpoint fills them: `level_embed` of Deformable DETR and DINO (models/detectors/deformable_detr.py) and the scale
# of SSD's L2Norm (models/necks/ssd_neck.py). The dry forward comes before that, and a teacher with random weights never
# gets there: now and then their outputs are NaN.
# Test: test_mmdet_still_leaves_parameters_uninitialised.


def fill_uninitialised(model: torch.nn.Module) -> None:
    """Give a detector that has just been built the values that mmdet means its uninitialised parameters to have."""
    for module in model.modules():
        if isinstance(getattr(module, 'level_embed', None), torch.nn.Parameter):
            module.level_embed.data.zero_()
        elif type(module).__name__ == 'L2Norm':
            module.weight.data.fill_(module.scale)


# --------------------------------------------------------------------------------------------------------------------
# mmdet 3.3.0: BaseDenseHead._predict_by_feat_single asks `self.loss_cls` whether it has channels of its own; SSDHead
# makes no such attribute, so that SSD trains and cannot predict (mmdetection #11063, #11305, #11780).
# Test: test_mmdets_ssd_still_cannot_predict.


def let_ssd_predict() -> None:
    """Give mmdet's ``SSDHead`` the attribute that its ``predict`` asks for. Imports mmdet's models."""
    from mmdet.models.dense_heads import SSDHead

    if not hasattr(SSDHead, 'loss_cls'):
        SSDHead.loss_cls = None


# --------------------------------------------------------------------------------------------------------------------


def install() -> None:
    """Install what `import kd_det` needs. Safe to call again; imports no part of mmrazor."""
    if not any(isinstance(finder, _QuantizationFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuantizationFinder())
    allow_mmengine_checkpoints()
    register_checkpoint_schemes()
