"""Steps of training, timed in turn: the plain student, its teachers alone, ours, mmrazor's; and their peak memory."""

from __future__ import annotations

import copy
import ctypes
import functools
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS as MMDET
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from kd_det.compat import fill_uninitialised
from kd_det.detectors.plan import probe_batch
from kd_det.detectors.teacher import _model_config, make_teachers, named_teachers
from kd_det.detectors.term import Term
from kd_det.errors import ConfigError
from kd_det.losses import CRDLoss
from kd_det.registry import MODELS

from .cells import without_pretrained
from .machine import resident
from .part import detector_config
from .razor import KINDS, razor_detector
from .setting import Setting, leaves

__all__ = ['Batch', 'Job', 'Steps', 'interleave', 'jobs_of_config', 'jobs_of_setting', 'peak_mib', 'ratio', 'spread']

#: Annotated objects that CRD remembers here; in a training, those of the training set.
_INSTANCES = 10_000


@dataclass
class Job:
    """One method with its pair.

    Attributes:
        name: Of the method or the config.
        model: Config of the DistillDetector, teacher included.
        masks: Whether its images come with instance masks.
    """

    name: str
    model: dict[str, Any]
    masks: bool = False


@dataclass
class Batch:
    """Random images with boxes, each with an id.

    Args:
        size: Height and width, px.
        images: Number of images.
        boxes: Ground-truth boxes per image.
        device: Where they lie.
        autocast: dtype of the autocast around every step; None for none.
    """

    size: tuple[int, int] = (320, 320)
    images: int = 2
    boxes: int = 7
    device: str = 'cpu'
    autocast: torch.dtype | None = None
    inputs: Tensor = field(init=False, repr=False)
    samples: list[DetDataSample] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        device = torch.device(self.device)
        generator = torch.Generator().manual_seed(1)
        height, width = self.size
        inputs, self.samples = [], []
        for _ in range(self.images):
            image, (sample,) = probe_batch(tuple(self.size), device)
            centre = torch.rand(self.boxes, 2, generator=generator) * 0.6 + 0.2
            half = torch.rand(self.boxes, 2, generator=generator) * 0.15 + 0.02
            boxes = torch.cat([centre - half, centre + half], 1) * torch.tensor([width, height, width, height])
            old = sample.gt_instances
            ids = torch.arange(self.boxes, device=device) + len(self.samples) * self.boxes
            labels = old.labels[:1].repeat(self.boxes)
            sample.gt_instances = type(old)(bboxes=boxes.to(device), labels=labels, instance_ids=ids)
            inputs.append(torch.randn(image.shape, generator=generator).to(device))
            self.samples.append(sample)
        self.inputs = torch.cat(inputs)

    @functools.cached_property
    def masked(self) -> list[DetDataSample]:
        """The samples with instance masks, which fill their boxes."""
        samples = copy.deepcopy(self.samples)
        for sample in samples:
            masks = np.zeros((self.boxes, *self.size), np.uint8)
            for mask, box in zip(masks, sample.gt_instances.bboxes.round().int().tolist()):
                mask[box[1] : box[3], box[0] : box[2]] = 1
            sample.gt_instances.masks = BitmapMasks(masks, *self.size)
        return samples

    def context(self) -> AbstractContextManager:
        """The autocast around a step."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, self.autocast)


def jobs_of_config(config: Config, name: str) -> list[Job]:
    """The job of a kd_det config.

    Raises:
        ConfigError: If it is none of a DistillDetector.
    """
    model = config.get('model') or {}
    missing = [f'model.{key}' for key in ('student', 'distill') if not isinstance(model.get(key), dict)]
    if missing:
        raise ConfigError(
            f'config: {name!r} has no {" and no ".join(missing)}; expected a config of a DistillDetector.'
        )
    return [Job(name, copy.deepcopy(model.to_dict()), masks=_has_masks(config))]


def jobs_of_setting(setting: Setting, methods: Sequence[str] | None = None) -> list[Job]:
    """The jobs of a benchmark's setting, of all its methods or of some.

    Raises:
        ConfigError: If the setting has no such method.
    """
    for name in methods or ():
        setting._check_method(name, '--methods')
    student, teacher = (detector_config(setting.config(who)) for who in ('student', 'teacher'))
    masks = _has_masks(setting.config('student'))
    jobs = []
    for name in methods or setting.methods:
        method = setting.methods[name]
        model = dict(
            type='kd_det.DistillDetector', student=student, teacher=dict(config=dict(model=teacher), checkpoint=None),
            distill=method.distill(), task_weights=method.weights_of_task() or None,
        )  # fmt: skip
        jobs.append(Job(name, copy.deepcopy(model), masks))
    return jobs


def _has_masks(config: Config) -> bool:
    """Whether the images that a config trains on come with instance masks."""
    loader = config.get('train_dataloader')
    steps = (step for leaf in leaves(loader.dataset) for step in leaf.get('pipeline', ())) if loader else ()
    return any(step.get('with_mask') for step in steps)


class Steps:
    """What is timed for one job: callables by name, on one batch, with random weights, the same ones in all calls.

    ``student``: forward, losses and backward of the plain student. ``extract_feat``: backbone and neck of each teacher
    that a term reads, as mmdet runs them, under ``no_grad``. ``teacher <precision>``: these teachers of ours, down to
    their taps. ``kd_det <precision>``: our whole step. ``mmrazor <kind>``: mmrazor's step for the same method and
    weights. No optimiser's step is in them, and no move of a moving average, which a hook makes after that.

    A student that teaches itself has neither ``extract_feat`` nor ``teacher``. Where no teacher has a precision of its
    own, for there is none or a moving average alone, the one step is ``kd_det auto``.

    What cannot be built is left out, with the reason in ``failed`` by name; so are mmrazor's steps that cannot be run,
    after :meth:`try_mmrazor`.

    Every term counts in full, whatever its schedule, and teachers run in every step: their cache is off. What a first
    stage trains has random weights, too. CRD remembers 10 000 objects, unless its config says how many.

    Args:
        job: The method.
        batch: The images.
        precisions: Of our teachers: one step for each.
        kinds: mmrazor's ways to run the teacher, of :data:`kd_det.bench.razor.KINDS`; empty for none.
        only: Keep nothing but this one.

    Attributes:
        calls: What is timed, by name.
        failed: Why something is not timed, by name.
        precisions: Those that are timed.

    Raises:
        ConfigError: For a model that cannot be built.
    """

    def __init__(
        self,
        job: Job,
        batch: Batch,
        precisions: Sequence[str] = ('auto',),
        kinds: Sequence[str] = KINDS,
        only: str | None = None,
    ) -> None:
        self.job, self.batch = job, batch
        self.calls: dict[str, Callable[[], None]] = {}
        self.failed: dict[str, str] = {}
        self._samples = batch.masked if job.masks else batch.samples
        cfg = copy.deepcopy(job.model)
        without_pretrained(cfg)
        for term in cfg['distill'].values():
            if isinstance(term, dict) and isinstance(term.get('loss'), dict):
                term['loss'].pop('paraphraser', None)  # random weights instead of a first stage's
        for one in _trained(cfg):
            one.update(checkpoint=None, cache=None)
        owners = {owner for name, term in cfg['distill'].items() for owner, *_ in Term(name, term).taps()}
        torch.manual_seed(0)
        plain = self._placed(_build(cfg['student']))
        teachers = make_teachers(cfg.get('teacher'), cfg['student'])
        for teacher in teachers.values():
            teacher.load(batch.device)
            if teacher.follows:
                teacher.follow(plain)
        self._weights = [
            plain.state_dict(),
            *(each.model.state_dict() for each in teachers.values() if not each.follows),
        ]
        #: The teachers that a term reads; a tap without a name is of the only one.
        self._read = [name for name in teachers if {name, ''} & owners]
        self.precisions = tuple(precisions)
        if all(teachers[name].follows for name in self._read):
            self.precisions = ('auto',)
            why = "no teacher here has a precision of its own: the one step is 'kd_det auto'"
            self.failed.update({f'kd_det {name}': why for name in precisions if name != 'auto'})
        ours = {
            name: self._ours(cfg, name)
            for name in self.precisions
            if self._wanted(only, f'kd_det {name}', f'teacher {name}')
        }
        if self._wanted(only, 'student'):
            self.calls['student'] = lambda: self._step(plain)
        if self._wanted(only, 'extract_feat') and self._read:
            networks = [teachers[name].model for name in self._read]
            self.calls['extract_feat'] = lambda: self._extract(*networks)
        for name, model in ours.items():
            if self._wanted(only, f'teacher {name}') and self._read:
                self.calls[f'teacher {name}'] = lambda model=model: self._observe(model)
            if self._wanted(only, f'kd_det {name}'):
                self.calls[f'kd_det {name}'] = lambda model=model: self._step(model)
        for kind in kinds:
            if self._wanted(only, f'mmrazor {kind}'):
                if list(teachers) != [''] or teachers[''].follows:
                    self.failed[f'mmrazor {kind}'] = 'its step has one teacher, with weights of its own'
                    continue
                try:
                    razor = self._razor(kind, cfg)
                except Exception as error:  # of mmrazor's making or of our way to build it: ours are timed all the same
                    self.failed[f'mmrazor {kind}'] = _reason(error)
                    continue
                self.calls[f'mmrazor {kind}'] = lambda razor=razor: self._step(razor)
        del self._weights

    def try_mmrazor(self) -> None:
        """Run each of mmrazor's steps once, and leave out those that fail."""
        for name in [name for name in self.calls if name.startswith('mmrazor')]:
            try:
                self.calls[name]()
            except Exception as error:
                self.failed[name] = _reason(error)
                del self.calls[name]

    @staticmethod
    def _wanted(only: str | None, *names: str) -> bool:
        return only is None or only in names

    def _placed(self, model: nn.Module) -> nn.Module:
        model.to(self.batch.device)
        model.train()  # mmrazor's returns nothing
        return model

    def _share(self, *networks: nn.Module) -> None:
        """Give a student and its teachers the weights of all calls: work may depend on them, as behind an RPN."""
        for network, weights in zip(networks, self._weights, strict=True):
            network.load_state_dict(weights)

    def _ours(self, cfg: dict[str, Any], precision: str) -> nn.Module:
        torch.manual_seed(0)
        cfg = copy.deepcopy(cfg)
        for one in _trained(cfg):
            one['precision'] = precision
        model = self._placed(MODELS.build(cfg))
        for loss in model.modules():
            if isinstance(loss, CRDLoss) and loss.n_data is None:
                loss.hold(max(_INSTANCES, self.batch.images * self.batch.boxes))
        model._load_teachers()
        self._share(model.student, *(each.model for each in model.teachers.values() if not each.follows))
        for teacher in model.teachers.values():
            if teacher.follows:
                teacher.follow(model.student)
        for term in model.terms:
            term.factor = 1.0
        with self.batch.context():
            for name in self._read:
                model.prepare_teacher(name, self.batch.inputs, self._samples)
        return model

    def _razor(self, kind: str, cfg: dict[str, Any]) -> nn.Module:
        student, teacher = cfg['student'], _model_config(cfg['teacher']['config'], 'model.teacher.config').to_dict()
        torch.manual_seed(0)
        model = self._placed(razor_detector(kind, student, teacher, cfg['distill']))
        self._share(model.architecture, model.teacher)
        return model

    def _step(self, model: nn.Module) -> None:
        with self.batch.context():
            losses = model.loss(self.batch.inputs, self._samples)
            total = sum(sum(v) if isinstance(v, (list, tuple)) else v for k, v in losses.items() if 'loss' in k)
        total.backward()
        model.zero_grad(set_to_none=True)

    def _extract(self, *models: nn.Module) -> None:
        with torch.no_grad(), self.batch.context():
            for model in models:
                model.extract_feat(self.batch.inputs)

    def _observe(self, model: nn.Module) -> None:
        for name in self._read:
            taps = model._teacher_taps[name]
            with self.batch.context():
                model.teachers[name].observe(self.batch.inputs, self._samples, taps)
            taps.clear()


def _trained(cfg: dict[str, Any]) -> list[dict[str, Any]]:
    """The configs of a model's teachers, moving averages apart."""
    found = named_teachers(cfg.get('teacher')).values()
    return [one for one in found if isinstance(one, dict) and not one.get('ema')]


def _reason(error: Exception) -> str:
    """The first line of an error's message, with its type."""
    return f'{type(error).__name__}: {error}'.splitlines()[0]


def _build(cfg: dict[str, Any]) -> nn.Module:
    """A detector of mmdet from its ``model``."""
    cfg = copy.deepcopy(cfg)
    with MMDET.switch_scope_and_registry(cfg.pop('_scope_', 'mmdet')) as registry:
        model = registry.build(ConfigDict(cfg))
    fill_uninitialised(model)
    return model


def interleave(
    calls: Mapping[str, Callable[[], Any]], rounds: int = 9, warmup: int = 2, device: str = 'cpu'
) -> dict[str, list[float]]:
    """Seconds of each call, one list entry per round; every round calls each once, in an order of its own.

    Args:
        calls: Name → what to time.
        rounds: Timed rounds.
        warmup: Rounds before them.
        device: ``'cuda…'`` waits for the GPU around each call.
    """
    wait = torch.cuda.synchronize if torch.device(device).type == 'cuda' else lambda: None
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    shuffled = random.Random(0)
    gc.collect()
    for number in range(warmup + rounds):
        for name in shuffled.sample(list(calls), len(calls)):  # nobody always comes after the same one
            wait()
            start = time.perf_counter()
            calls[name]()
            wait()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median and quartiles."""
    values = sorted(values)
    low, middle, high = statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1 else values * 3
    return dict(median=statistics.median(values), low=low, high=high)


def ratio(top: Sequence[float], *bottom: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of a ratio per round: one call's seconds over the sum of others'."""
    return spread(a / sum(b) for a, *b in zip(top, *bottom, strict=True))


def peak_mib(call: Callable[[], Any], device: str = 'cpu') -> tuple[float, float]:
    """Memory of a call in MiB: its peak above the networks at rest, and what they hold then.

    The call is made once before anything is measured, so that what stays from it (kernels, buffers) is at rest for
    everyone. Then the peak of a second one is taken: the allocator's on a GPU, of resident memory on a CPU (Linux).

    Meant for a process of its own: the resident memory of one that has done other things hides a peak.

    Returns:
        The peak less what is there between two calls; and the size of all tensors that are there between them: weights,
        buffers and the batch.
    """
    cuda = torch.device(device).type == 'cuda'
    call()
    gc.collect()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        rest = torch.cuda.memory_allocated() / 2**20
    else:
        trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # glibc's: give back what is free
        if trim is not None:
            trim(0)
        Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
        rest = resident('VmRSS')
    call()
    if cuda:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else resident('VmHWM')
    return peak - rest, _tensors_mib(torch.device(device).type)


def _tensors_mib(device: str) -> float:
    """MiB of all tensors of this process on a kind of device."""
    tensors = [each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter) and each.device.type == device]
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}
    return sum(storages.values()) / 2**20
