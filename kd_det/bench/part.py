"""One part of a comparison: one detector trained by mmengine's Runner, evaluated, and put away with its figures."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import math
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, load_checkpoint, set_random_seed

from kd_det.checkpoint import atomic_path, export_student, student_config, student_state_dict
from kd_det.errors import DataError
from kd_det.registry import DATASETS, MODELS

__all__ = [
    'METRICS',
    'Part',
    'detector_config',
    'figures',
    'image_shape',
    'initial_weights',
    'output_to',
    'predict',
    'weights_digest',
]

#: Figures of mmdet's CocoMetric → their names in the results.
METRICS = dict(
    mAP='bbox_mAP',
    AP50='bbox_mAP_50',
    AP75='bbox_mAP_75',
    small='bbox_mAP_s',
    medium='bbox_mAP_m',
    large='bbox_mAP_l',
)
DONE = 'done.json'


def weights_digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over names and values of a state dict."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def detector_config(cfg: Config) -> dict:
    """The plain mmdet detector of a config: the student of a distilled one, else the model itself."""
    return cfg.model.get('student', cfg.model)


def figures(metrics: dict) -> dict[str, float]:
    """COCO figures, or VOC's one, under our names; mmdet gives none at all where nothing was found in any image.

    Raises:
        DataError: If there are figures, and none of these.
    """
    if 'pascal_voc/mAP' in metrics:
        return dict(mAP=float(metrics['pascal_voc/mAP']))
    if metrics and 'coco/bbox_mAP' not in metrics:
        raise DataError(f'val_evaluator: found {", ".join(metrics)}, expected coco/bbox_mAP or pascal_voc/mAP.')
    return {name: float(metrics.get(f'coco/{key}', 0.0)) for name, key in METRICS.items()}


def _detector(model: torch.nn.Module) -> torch.nn.Module:
    model = model.module if is_model_wrapper(model) else model
    return getattr(model, 'student', model)


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """All that Python prints goes to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a', buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


class _Diverged(Exception):
    """A loss that is not finite: no step can mend it."""


class _Recorder(Hook):
    """Keeps curves, times and fingerprints of a training."""

    priority = 'VERY_LOW'

    def __init__(self, terms: list[str], report: Callable[..., None]) -> None:
        self.terms = tuple(f'loss_{term}' for term in terms)
        self.report = report
        self.curve = dict(epoch=[], loss=[], distill_loss=[], val_epoch=[], mAP=[])
        self.seconds, self.cpu_seconds, self.data, self.initial, self.metrics = 0.0, 0.0, 0, '', {}

    def before_train(self, runner: Runner) -> None:
        self.initial = weights_digest(_detector(runner.model).state_dict())

    def before_train_epoch(self, runner: Runner) -> None:
        self._losses, self._start, self._cpu = [], time.perf_counter(), time.process_time()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        for image in data_batch['inputs']:
            self.data = zlib.crc32(image.contiguous().numpy(), self.data)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        parts = {k: float(torch.as_tensor(v).detach()) for k, v in outputs.items() if 'loss' in k and k != 'loss'}
        distill = sum(v for k, v in parts.items() if k.startswith(self.terms))
        total = float(torch.as_tensor(outputs['loss']).detach())
        if not math.isfinite(total):
            raise _Diverged(f'loss {total} in step {runner.iter + 1}')
        self._losses.append((total - distill, distill))
        self.report(steps=1, epoch=runner.epoch + 1, loss=total)

    def after_train_epoch(self, runner: Runner) -> None:
        self.seconds += time.perf_counter() - self._start
        self.cpu_seconds += time.process_time() - self._cpu
        task, distill = (sum(column) / len(column) for column in zip(*self._losses))
        self.curve['epoch'].append(runner.epoch + 1)
        self.curve['loss'].append(round(task, 5))
        self.curve['distill_loss'].append(round(distill, 5))
        self.report(steps=0, epoch=runner.epoch + 1, loss=task + distill)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.metrics = figures(metrics)
        self.curve['val_epoch'].append(runner.epoch)
        self.curve['mAP'].append(self.metrics['mAP'])
        loss = self.curve['loss'][-1] if self.curve['loss'] else sum(self._losses[-1])  # a loop of iterations: no epoch
        self.report(steps=0, epoch=runner.epoch, loss=loss, mAP=self.metrics['mAP'])


@dataclass
class Part:
    """One training.

    Args:
        name: ``teacher``, ``plain``, or the name of a method.
        seed: Seed of the initial weights and of the order of the data.
        config: Complete but for ``work_dir``, and for weights that come from files.
        folder: Where everything of this part lies; its name holds the digest of the settings.
        digest: SHA-256 of all that the outcome depends on.
        teacher: Checkpoint of the teacher, for a distilled student.
        initial: Checkpoint that the detector starts from; None for its own ``init_weights``.
    """

    name: str
    seed: int
    config: Config
    folder: Path
    digest: str
    teacher: Path | None = None
    initial: Path | None = None

    @property
    def checkpoint(self) -> Path:
        """Weights of the trained detector, as plain mmdet loads them."""
        return self.folder / f'{self.name}.pth'

    @property
    def label(self) -> str:
        return f'{self.name}, seed {self.seed}:'

    def finished(self) -> dict | None:
        """The figures of this part if it was trained before with equal settings."""
        try:
            record = json.loads((self.folder / DONE).read_text())
        except (OSError, ValueError):
            return None
        intact = record.get('digest') == self.digest and self.checkpoint.is_file()
        return {**record, 'reused': True} if intact else None

    def runner_config(self) -> Config:
        """The config that mmengine's Runner gets."""
        cfg = copy.deepcopy(self.config)
        cfg.work_dir = str(self.folder)
        cfg.experiment_name = f'{self.folder.name}-{time.time_ns()}'
        object.__setattr__(cfg, '_format_python_code', False)  # mmengine prints it five times: seconds each time
        if self.initial is not None:
            detector_config(cfg).init_cfg = dict(type='Pretrained', checkpoint=str(self.initial))
        if self.teacher is not None:
            cfg.model.teacher.checkpoint = str(self.teacher)
        return cfg

    def train(self, report: Callable[..., None]) -> dict:
        """Train and evaluate; an unfinished earlier attempt is thrown away, so that all starts from the same state.

        Args:
            report: Called as ``report(steps, epoch, loss, mAP=None)`` after each step, and with ``steps=0`` after each
                epoch and each evaluation.

        Returns:
            The figures, which also lie in ``done.json`` of the folder.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        with output_to(self.folder / 'console.log'):
            start = time.perf_counter()
            recorder = _Recorder(list(self.config.model.get('distill', {})), report)
            runner = Runner.from_cfg(self.runner_config())
            runner.register_hook(recorder)
            diverged = False
            try:
                runner.train()
            except _Diverged as error:
                diverged = True
                print(f'The training diverged: {error}')
            for hook in runner.hooks:
                if isinstance(hook, EMAHook) and not diverged:
                    hook._swap_ema_parameters()  # what was validated is what is exported and what teaches
            weights = dict(meta=dict(dataset_meta=runner.train_dataloader.dataset.metainfo, epoch=runner.epoch))
            weights['state_dict'] = getattr(runner.model, 'module', runner.model).state_dict()
            export_student(weights, self.checkpoint, cfg=self.config, config_out=self.checkpoint.with_suffix('.py'))
            record = dict(
                name=self.name,
                seed=self.seed,
                digest=self.digest,
                metrics=dict.fromkeys(METRICS, 0.0) if diverged else recorder.metrics,
                diverged=diverged,
                **self.complexity(),
                train_seconds=round(recorder.seconds, 2),
                cpu_seconds=round(recorder.cpu_seconds, 2),
                seconds=round(time.perf_counter() - start, 2),
                steps=runner.iter,
                initial_weights=recorder.initial,
                data=f'{recorder.data:08x}',
                weights=weights_digest(student_state_dict(weights)),
                curve=recorder.curve,
                device=str(next(runner.model.parameters()).device),
            )
        with atomic_path(self.folder / DONE) as path:
            path.write_text(json.dumps(record, indent=1))
        return {**record, 'reused': False}

    def evaluate(self) -> dict[str, float]:
        """COCO figures of the saved detector under its plain mmdet config."""
        cfg = student_config(self.config)
        cfg.work_dir, cfg.load_from = str(self.folder), str(self.checkpoint)
        cfg.experiment_name = f'{self.folder.name}-{time.time_ns()}'
        with output_to(self.folder / 'console.log'):
            metrics = Runner.from_cfg(cfg).test()
        return figures(metrics)

    def complexity(self) -> dict[str, int | None]:
        """Parameters, and FLOPs of one image of the validation pipeline's size; None where they cannot be counted."""
        model = MODELS.build(detector_config(self.config)).eval()
        height, width = image_shape(self.config)
        try:
            counted = get_model_complexity_info(model, (3, height, width), show_table=False, show_arch=False)
            flops = int(counted['flops'])
        except Exception as error:  # mmengine cannot trace every detector; a count is not worth a training
            print(f'FLOPs could not be counted: {type(error).__name__}: {error}')
            flops = None
        return dict(parameters=sum(p.numel() for p in model.parameters()), flops=flops)


def image_shape(cfg: Config) -> tuple[int, int]:
    """Height and width that the validation pipeline resizes to; (640, 640) if it does not say."""
    dataset = cfg.val_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    for step in dataset.get('pipeline', []):
        if step['type'] in ('Resize', 'mmdet.Resize') and step.get('scale'):
            width, height = (step['scale'],) * 2 if isinstance(step['scale'], int) else step['scale']
            return int(height), int(width)
    return 640, 640


def initial_weights(cfg: Config, seed: int, path: Path) -> str:
    """Write a detector's random initial weights to a file.

    Args:
        cfg: Config with the detector.
        seed: Seed of the weights.
        path: File to write.

    Returns:
        Digest of the weights.
    """
    with output_to(path.with_suffix('.log')):
        set_random_seed(seed)
        model = MODELS.build(detector_config(cfg))
        model.init_weights()
    with atomic_path(path) as temporary:
        torch.save(dict(state_dict=model.state_dict()), temporary)
    return weights_digest(model.state_dict())


def predict(part: Part, indices: list[int]) -> list[dict]:
    """What the detector of a finished part finds in some validation images.

    Args:
        part: The part.
        indices: Positions in the validation set.

    Returns:
        Per image ``boxes`` (n, 4), ``labels`` (n,) and ``scores`` (n,) as NumPy arrays.
    """
    with output_to(part.folder / 'console.log'):
        model = MODELS.build(detector_config(part.config))
        load_checkpoint(model, str(part.checkpoint), map_location='cpu', strict=True)
        data = DATASETS.build(part.config.val_dataloader.dataset)
        with torch.no_grad():
            results = model.eval().test_step(pseudo_collate([data[i] for i in indices]))
    found = [result.pred_instances.numpy() for result in results]
    return [dict(boxes=f.bboxes, labels=f.labels, scores=f.scores) for f in found]
