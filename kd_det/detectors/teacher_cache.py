"""What a frozen teacher reads in an image, kept on disk and replayed where the image comes back as it was."""

from __future__ import annotations

import copy
import enum
import hashlib
import importlib.metadata
import json
import operator
import os
import random
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePath
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

import mmcv
import mmdet
import mmengine
import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dist import get_world_size, is_main_process
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from kd_det.datasets.cached_images import size_text
from kd_det.errors import ConfigError, did_you_mean
from kd_det.taps import TapSet
from kd_det.version import __version__

from .inference import to_plain
from .plan import raise_together
from .reading_store import GIB, RESERVE, ReadingStore

if TYPE_CHECKING:
    from .teacher import Teacher

__all__ = ['TeacherCache', 'refuse_uncacheable']

#: Raised when the meaning of a file changes.
_VERSION = 1
_KEYS = ('path', 'limit_gib')
#: Below this share of images that came back as they were, a warning says that the cache is of no use.
_LOW = 0.1
#: What of a sample says which image it is, and not how it looks.
_IDS = ('img_id', 'img_path', 'file_name', 'filename', 'ori_filename', 'img_prefix', 'seg_map_path', 'sample_idx')
#: What of a sample people may want to know.
_ABOUT = ('img_id', 'img_path', 'flip', 'flip_direction', 'img_shape', 'pad_shape', 'batch_input_shape', 'ori_shape')
_ABOUT += ('scale_factor',)
#: Packages that may give a teacher's modules, beside those that are always there.
_PACKAGES = ('mmrazor', 'mmpretrain', 'timm', 'transformers')
#: Settings of ``torch.backends`` that choose kernels or round otherwise; not every version has them all.
_SETTINGS = (
    'fp32_precision', 'cudnn.enabled', 'cudnn.benchmark', 'cudnn.deterministic', 'cudnn.allow_tf32',
    'cudnn.fp32_precision', 'cudnn.conv.fp32_precision', 'cudnn.rnn.fp32_precision', 'cuda.matmul.allow_tf32',
    'cuda.matmul.fp32_precision', 'cuda.matmul.allow_fp16_accumulation',
    'cuda.matmul.allow_fp16_reduced_precision_reduction', 'cuda.matmul.allow_bf16_reduced_precision_reduction',
    'cuda.flash_sdp_enabled', 'cuda.mem_efficient_sdp_enabled', 'cuda.math_sdp_enabled', 'cuda.cudnn_sdp_enabled',
    'cuda.fp16_bf16_reduction_math_sdp_allowed', 'mkldnn.enabled', 'mkldnn.deterministic', 'mkldnn.allow_tf32',
    'mkldnn.fp32_precision', 'mkldnn.conv.fp32_precision', 'mkldnn.matmul.fp32_precision', 'mkldnn.rnn.fp32_precision',
)  # fmt: skip


class TeacherCache:
    """Keeps all that a teacher's taps recorded, for each image of a batch, and replays it bit for bit.

    A reading is replayed if everything that decides it is as it was: the normalised and padded pixels that the
    teacher's network gets (and with them the image and every transform drawn), batch size and padded shape, the data
    samples (without names and ground truth) where the network looks at them, weights and config of the teacher, the
    source files of its modules, how it is run (precision, folding, memory format, compilation, autocast), the taps, the
    device and its settings, and the libraries' versions.
    If anything differs, or one image of the batch is not there, the whole batch is computed, and what was not there is
    written.

    The place of an image in its batch is part of the key only where it changes a bit of its readings. That is tried
    for each shape of a batch before the first of its readings is written, with the batch in another order.

    Readings that are no readings of single images end the caching with a warning: without a batch dimension, dependent
    on the other images of the batch, or different in two runs on the same images.

    Args:
        path: Folder of the files; several teachers, runs and processes may share it.
        limit_gib: Limit of the folder's size in GiB. At the limit, or when the disk is full, nothing more is written,
            and what is there is replayed.
        config: The teacher's config.
        key: The config key to blame.

    Raises:
        ConfigError: If ``path`` is no folder or ``limit_gib`` no positive number, or if ``config`` holds an object of
            which no text tells what it is.

    Attributes:
        images: How many images the data set has; None if nobody told. Set by
            :class:`~kd_det.hooks.TeacherCacheHook`.
        off: Why it does nothing; empty while it works.
    """

    def __init__(
        self, path: str, limit_gib: float = 50.0, config: Any = None, key: str = 'model.teacher.cache'
    ) -> None:
        if not isinstance(path, (str, Path)) or not str(path).strip():
            raise ConfigError(f"{key}.path: found {path!r}, expected a folder, such as 'work_dirs/teacher_cache'.")
        if os.path.exists(path) and not os.path.isdir(path):
            raise ConfigError(f'{key}.path: {str(path)!r} is a file; expected a folder.')
        is_number = isinstance(limit_gib, (int, float)) and not isinstance(limit_gib, bool)
        if not is_number or not limit_gib > 0:
            raise ConfigError(f'{key}.limit_gib: found {limit_gib!r}, expected a positive number of GiB, such as 50.')
        self.key, self.off = key, ''
        self.images: int | None = None
        self.store = ReadingStore(path, limit_gib * GIB)
        try:
            self._config = _digest(_text(config))
        except _NoText as error:
            raise ConfigError(
                f"{key}: the teacher's config holds {error}, of which no text tells what it does; expected numbers, "
                'strings, lists, dicts, arrays, and classes or functions with a name, or no cache.'
            ) from None
        self._weights = self._sources = ''
        self._taps: TapSet | None = None
        self._dims: list[int] = []
        self._looks = False
        self._contexts: dict[tuple, str] = {}
        self._placed: dict[str, bool] = {}
        self._said: set[str] = set()
        self._epochs = 0
        self._epoch: Counter[str] = Counter()

    @classmethod
    def from_config(cls, cfg: Any, config: Any, key: str) -> TeacherCache | None:
        """Build from ``model.teacher.cache``; None for None.

        Args:
            cfg: ``dict(path=…, limit_gib=…)``.
            config: The teacher's config.
            key: The config key to blame.

        Raises:
            ConfigError: For unknown or missing keys, or what the constructor refuses.
        """
        if cfg is None:
            return None
        if not isinstance(cfg, dict) or 'path' not in cfg:
            raise ConfigError(f"{key}: found {cfg!r}, expected dict(path='work_dirs/teacher_cache', limit_gib=50).")
        for name in cfg:
            if name not in _KEYS:
                raise ConfigError(
                    f'{key}: unknown key {name!r}; expected {", ".join(_KEYS)}.{did_you_mean(name, _KEYS)}'
                )
        config = config.to_dict() if isinstance(config, ConfigDict) else config
        return cls(**cfg, config=config, key=key)

    def check_run(self, run: str) -> None:
        """Refuse a run that decides more than the image does.

        Args:
            run: How deep the taps lie, see :func:`~kd_det.detectors.teacher.probe_network`.

        Raises:
            ConfigError: If the taps are reached in the teacher's loss alone.
        """
        if run == 'loss':
            raise ConfigError(
                f'{self.key}: a tap of this teacher is read while its loss is computed, from the objects of all images '
                "and random samples of them, which no image decides alone; expected taps such as 'neck' or "
                "'bbox_head[0]', or no cache."
            )

    def begin(self, model: nn.Module) -> None:
        """Note the weights as they were loaded, before they are folded or converted."""
        digest = hashlib.blake2b(digest_size=16)
        for name, value in model.state_dict().items():
            digest.update(f'{name} {value.dtype} {tuple(value.shape)};'.encode())
            digest.update(_bytes(value))
        self._weights = digest.hexdigest()
        self._contexts.clear()

    # --- one step -----------------------------------------------------------------------------------------------------

    def observe(self, teacher: Teacher, images: Tensor, samples: Any, taps: TapSet) -> None:
        """Replay the readings, or compute and keep them; they are then in ``taps``, as after a run without a cache.

        Args:
            teacher: The teacher.
            images: As its network gets them, shape (B, 3, H, W).
            samples: The data samples.
            taps: Its taps.
        """
        if self._taps is None:
            self._taps = taps
            self._open(teacher, images[:1], samples[:1] if samples else samples, taps)
        if not self.off and taps is self._taps:
            kind = f'{self._context(teacher, images, taps)}/{tuple(images.shape)} {images.dtype}'
            names, number = self._names(kind, images, samples), len(images)
        if self.off or taps is not self._taps:
            teacher.run(images, samples, taps)
            taps.convert(to_plain)
            return
        found = self._find(names)
        self._epoch.update(images=number, known=sum(one is not None for one in found))
        replayed = all(found) and self._replay(found, images.device, taps)
        if not replayed:
            self._compute(teacher, images, samples, taps, kind, names, found)
        self._epoch['replayed'] += number * replayed
        taps.convert(to_plain)

    def _find(self, names: list[list[str]]) -> list[str | None]:
        """For each image the first of its names that has a file."""
        return [next((name for name in each if self.store.has(name)), None) for each in names]

    def _replay(self, found: list[str | None], device: torch.device, taps: TapSet) -> bool:
        """Fill ``taps`` from files; a damaged one is taken out of ``found``, and nothing is filled."""
        parts, before = [], self.store.damaged
        for index, name in enumerate(found):
            part = self.store.get(name)
            parts.append(part)
            if part is None:
                found[index] = None
        if self.store.damaged > before:
            self._warn('damaged', f'damaged files in {self.store.path} are computed anew.')
        if not all(parts):
            return False
        shapes = [part[0]['readings'] for part in parts]
        same = all(shape == shapes[0] for shape in shapes) and all(len(p[1]) == len(self._dims) for p in parts)
        if not same:
            return False
        tensors = [torch.cat(level, d).to(device) for d, *level in zip(self._dims, *(part[1] for part in parts))]
        taps.clear()
        for recorder, records in zip(taps.recorders.values(), _unpack(shapes[0], tensors), strict=True):
            recorder.data_buffer[:] = records
        return True

    def _compute(
        self,
        teacher: Teacher,
        images: Tensor,
        samples: Any,
        taps: TapSet,
        kind: str,
        names: list[list[str]],
        found: list,
    ) -> None:
        """The live teacher; what it read is kept where nothing was found."""
        try:
            looks, shape, tensors, drew = self._run(teacher, images, samples, taps)
        except _NoTensors as error:
            self._warn('odd', f'batches of shape {tuple(images.shape)} are not kept: a reading holds {error}.')
            return
        if looks and not self._looks:
            self._looks = True  # from the next batch on, the samples are in the key
            return
        if drew:
            self._switch_off('the teacher draws random numbers')
            return
        number = len(images)
        if len(tensors) != len(self._dims) or any(
            t.dim() <= d or t.shape[d] != number for t, d in zip(tensors, self._dims)
        ):
            self._warn('odd', f'batches of shape {tuple(images.shape)} are not kept: a reading has another layout.')
            return
        if kind not in self._placed and not self.store.stopped:
            buffers = [list(recorder.data_buffer) for recorder in taps.recorders.values()]
            self._placed[kind] = self._try_order(teacher, images, samples, taps, tensors)
            for recorder, records in zip(taps.recorders.values(), buffers):
                recorder.data_buffer[:] = records
        if self.off:
            return
        placed = self._placed.get(kind, False)
        for index, (mine, known) in enumerate(zip(names, found)):
            if known is not None or self.store.stopped:
                continue
            kept = [t.narrow(d, index, 1).cpu() for t, d in zip(tensors, self._dims)]
            notes = dict(readings=shape, image=_about(samples[index]) if samples else {})
            self._epoch['written'] += self.store.put(mine[-1] if placed else mine[0], notes, kept)
        if self.store.stopped:
            self._warn('stopped', f'{self.store.stopped}: nothing more is written, what is there is replayed.')

    def _run(
        self, teacher: Teacher, images: Tensor, samples: Any, taps: TapSet
    ) -> tuple[bool, Any, list[Tensor], bool]:
        """Run the network; whether it looked at the samples, its readings' form, their tensors, whether it drew."""
        watched = _Watched(samples) if isinstance(samples, (list, tuple)) else samples
        before = _random_state(images.device)
        teacher.run(images, watched, taps)
        tensors: list[Tensor] = []
        shape = _pack([list(r.data_buffer) for r in taps.recorders.values()], tensors, {})
        drew = before != _random_state(images.device)
        return getattr(watched, 'looked', samples is not None), shape, tensors, drew

    def _try_order(self, teacher: Teacher, images: Tensor, samples: Any, taps: TapSet, tensors: list[Tensor]) -> bool:
        """Whether readings of a batch of this shape change with the places of the images in it."""
        if len(images) == 1:
            return False
        other = copy.deepcopy([*samples[1:], samples[0]]) if samples else samples
        rolled = self._run(teacher, images.roll(-1, 0), other, taps)[2]
        if _same_bits(tensors, [t.roll(1, d) for t, d in zip(rolled, self._dims)]):
            return False
        again = self._run(teacher, images, copy.deepcopy(samples), taps)[2]
        if not _same_bits(tensors, again):
            self._switch_off('two runs on the same images give different readings')
        return True

    # --- what decides a reading ---------------------------------------------------------------------------------------

    def _names(self, kind: str, images: Tensor, samples: Any) -> list[list[str]]:
        """For each image the names that its readings may have: whatever its place in the batch, and in its place.

        Args:
            kind: All that is the same for the images of a batch: the folder of the files, shape and dtype.
            images: Shape (B, 3, H, W).
            samples: The data samples. If the network looks at what cannot be told in text, the cache is switched off.
        """
        context, _, common = kind.partition('/')
        looked = []
        if self._looks:
            try:
                looked = [_looked_at(sample) for sample in samples or ()]
            except _NoText as error:
                self._switch_off(f'the network looks at the data samples, which hold {error}')
                return []
            common += repr(sorted(looked))
        names = []
        placed = self._placed.get(kind)
        for index, pixels in enumerate(images):
            digest = hashlib.blake2b(common.encode(), digest_size=16)
            if looked:
                digest.update(looked[index].encode())
            digest.update(_bytes(pixels))
            free = f'{context}/{digest.hexdigest()}'
            here = f'{free}_{index}'
            names.append([free, here] if placed is None else [here] if placed else [free])
        return names

    def _context(self, teacher: Teacher, images: Tensor, taps: TapSet) -> str:
        """The digest of all that is the same for many images: the folder of their files, with a text that says it."""
        device = images.device
        run, counts = teacher.depth(taps)
        dtype = next((p.dtype for p in teacher.model.parameters()), None)
        now = (
            id(taps), str(device), torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type),
            teacher._dtype(device.type), dtype, torch.get_num_threads(), _settings(), _compiled(teacher.model),
        )  # fmt: skip
        if now not in self._contexts:
            is_cpu = device.type == 'cpu'
            facts = dict(
                version=_VERSION,
                config=self._config,
                weights=self._weights,
                sources=self._sources,
                checkpoint=str(teacher.checkpoint),
                run=run,
                taps=[[*source, str(counts.get(source)), str(r.copies)] for source, r in taps.recorders.items()],
                precision=teacher.precision,
                fold=teacher.fold,
                batch_norms=sum(isinstance(module, _BatchNorm) for module in teacher.model.modules()),
                channels_last=teacher.channels_last,
                compile=teacher.compile,
                autocast=[str(part) for part in now[2:4]],
                dtypes=[str(part) for part in now[4:6]],  # of convolutions, of the first weights
                device=[device.type, torch.backends.cpu.get_cpu_capability() if is_cpu else _device_name(device)],
                threads=torch.get_num_threads() if is_cpu else None,
                settings=dict(now[7]),
                compiled=now[8],
                versions=_installed() | dict(
                    kd_det=__version__, mmcv=mmcv.__version__, mmdet=mmdet.__version__, mmengine=mmengine.__version__,
                    torch=torch.__version__, cuda=str(torch.version.cuda), cudnn=str(torch.backends.cudnn.version()),
                ),
            )  # fmt: skip
            text = json.dumps({k: v for k, v in facts.items() if k != 'checkpoint'}, sort_keys=True)
            self._contexts[now] = name = _digest(text)
            self.store.write_text(f'{name}/teacher.json', json.dumps(facts, indent=1))
        return self._contexts[now]

    # --- before the first step ----------------------------------------------------------------------------------------

    def _open(self, teacher: Teacher, image: Tensor, sample: Any, taps: TapSet) -> None:
        """Find the batch dimension of each reading, try that images do not mix, and say how much there will be."""
        if not self._weights:
            self.begin(teacher.model)
        devices = [image.device] if image.device.type == 'cuda' else []
        states = random.getstate(), np.random.get_state()
        with torch.random.fork_rng(devices):
            reason = self._try_split(teacher, image, sample, taps)
        random.setstate(states[0])
        np.random.set_state(states[1])
        if reason:
            self._switch_off(reason)
        else:
            self._report()

    def _try_split(self, teacher: Teacher, image: Tensor, sample: Any, taps: TapSet) -> str:
        """Set the batch dimensions and the size of an image's readings; or say why they cannot be split."""
        try:
            self._sources = _sources(teacher.model)
        except _NoText as error:
            return f'there is no source file of {error}'
        two = None if sample is None else [*copy.deepcopy(list(sample)), *copy.deepcopy(list(sample))]
        try:
            looks, _, one, drew = self._run(teacher, image, copy.deepcopy(sample), taps)
            shape, pair = self._run(teacher, torch.cat([image, image.flip(-1)]), two, taps)[1:3]
            other_shape, other = self._run(teacher, torch.cat([image, 1 - image]), copy.deepcopy(two), taps)[1:3]
        except _NoTensors as error:
            return f'a reading holds {error}'
        except Exception as error:
            first = (str(error).strip().splitlines() or [''])[0]
            return f'the teacher does not run on two images of one size ({type(error).__name__}: {first})'
        if drew:
            return 'the teacher draws random numbers'
        dims = _batch_dims(one, pair)
        if dims is None:
            return 'a reading has no batch dimension'
        if shape != other_shape or not _same_bits(_first(pair, dims), _first(other, dims)):
            return 'what is read in an image depends on the other images of its batch'
        self._looks, self._dims = looks, dims
        self._bytes = sum(t.numel() * t.element_size() for t in one)
        return ''

    def _report(self) -> None:
        there = self.store.count(get_world_size())
        each, free = self._bytes, max(0, self.store.free() - RESERVE)
        room = max(0, min(free, self.store.limit - there))
        if self.images:
            many = (
                f'{self.images} images: {size_text(each * self.images)}, and as much for each other way to draw them, '
            )
            many += 'such as a flip'
        else:
            many = "how many images, and how many are replayed, is told with dict(type='kd_det.TeacherCacheHook') in "
            many += 'custom_hooks'
        self._say(
            f'keeps {size_text(each)} an image in {self.store.path} ({many}); {size_text(there)} there, limit '
            f'{size_text(self.store.limit)}, {size_text(free)} of disk to use.'
        )
        if self.images and each * self.images > room + there:
            self._warn('room', f'there is room for {int(room // max(1, each))} more images; the rest is computed.')

    # --- at the end of an epoch ---------------------------------------------------------------------------------------

    #: What :meth:`counts` gives, in order.
    COUNTED = ('images', 'known', 'replayed', 'written')

    def counts(self) -> list[int]:
        """Images since the last :meth:`end_epoch`: seen, seen before as they were, replayed, written."""
        return [self._epoch[name] for name in self.COUNTED]

    def end_epoch(self, counts: Iterable[int] | None = None) -> None:
        """Say what was replayed, warn if hardly an image came back as it was, and start to count anew.

        Args:
            counts: Those of all processes together; this one's own if None.
        """
        images, known, replayed, written = self.counts() if counts is None else counts
        self._epoch.clear()
        if self.off or not images:
            return
        total = self.store.count(get_world_size())
        self._epochs += 1
        self._say(
            f'{replayed} of {images} images replayed, {images - replayed} computed ({written} of them written); '
            f'{size_text(total)} on disk.'
        )
        if self._epochs > 1 and known < _LOW * images and not self.store.stopped:
            self._warn(
                'useless',
                f'{known} of {images} images were seen again as they were: random resizing or cropping, or batches '
                'padded to ever other sizes, make a cache useless.',
            )

    # --- what it says -------------------------------------------------------------------------------------------------

    def _switch_off(self, reason: str) -> None:
        self.off = reason
        self._warn('off', f'switched off: {reason}.')

    def _say(self, text: str, level: int = 20) -> None:
        if is_main_process():
            print_log(f'{self.key.removeprefix("model.")}: {text}', 'current', level=level)

    def _warn(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._say(text, 30)


def refuse_uncacheable(teachers: dict[str, Teacher], terms: Iterable[Any], whose: Any, second: dict[Any, Any]) -> None:
    """Refuse a cache for a teacher that is asked for more than its own readings of the images.

    Args:
        teachers: By name.
        terms: All terms.
        whose: Owner and key of a tap → the name of its network.
        second: (Name of a term, tap) → a second stage, whose ``owner`` runs on the student's RoIs.

    Raises:
        ConfigError: If there is one.
    """
    errors = []
    for name, teacher in teachers.items():
        if teacher.cache is None:
            continue
        readers = [term for term in terms if name in {whose(owner, key) for owner, _, key in term.taps()}]
        if not readers:
            errors.append(
                f'{teacher.cache.key}: no term reads this teacher; a student that is its own teacher reads '
                'otherwise after each step. Expected no cache in self-distillation.'
            )
        staged = {term for (term, _), stage in second.items() if stage.owner == name}
        errors += [
            f'{teacher.cache.key}: {term.key} runs parts of the teacher on features or RoIs of the student, which '
            'change with each step; expected terms on its maps or scores alone, or no cache.'
            for term in readers
            if term.adapter.runs_teacher or term.name in staged
        ]
    raise_together([ConfigError(text) for text in errors])


class _NoTensors(Exception):
    """A reading holds what cannot be kept; the text names it."""


class _NoText(Exception):
    """No text tells what an object is, as long as it is the same; the message names it."""


class _Watched(list):
    """The samples of a batch, and whether anybody looked at them."""

    looked = False


def _watch(name: str) -> Any:
    plain = getattr(list, name)

    def method(self: _Watched, *args: Any) -> Any:
        self.looked = True
        return plain(self, *args)

    return method


for _name in (
    '__getitem__',
    '__iter__',
    '__len__',
    '__contains__',
    '__reversed__',
    '__add__',
    '__eq__',
    '__mul__',
    'copy',
):
    setattr(_Watched, _name, _watch(_name))


def _pack(value: Any, tensors: list[Tensor], places: dict[int, int]) -> Any:
    """A reading in JSON's types, its tensors apart; one that is read twice is there once.

    Raises:
        _NoTensors: If there is anything else in it.
    """
    if type(value) in (Tensor, nn.Parameter) and ReadingStore.keeps(value):
        if id(value) not in places:
            places[id(value)] = len(tensors)
            tensors.append(value)
        return ['tensor', places[id(value)]]
    if value is None or type(value) in (bool, int, float, str):
        return ['value', value]
    if type(value) in (list, tuple):
        return [type(value).__name__, *(_pack(item, tensors, places) for item in value)]
    if type(value) is dict and all(type(key) is str for key in value):
        return ['dict', {key: _pack(item, tensors, places) for key, item in value.items()}]
    raise _NoTensors(f'a {type(value).__name__}')


def _unpack(value: Any, tensors: list[Tensor]) -> Any:
    kind, *items = value
    if kind == 'tensor':
        return tensors[items[0]]
    if kind == 'value':
        return items[0]
    if kind == 'dict':
        return {key: _unpack(item, tensors) for key, item in items[0].items()}
    made = [_unpack(item, tensors) for item in items]
    return tuple(made) if kind == 'tuple' else made


def _batch_dims(one: list[Tensor], two: list[Tensor]) -> list[int] | None:
    """For each tensor the dimension that counts images; None if one has none. Of one image, and of two."""
    dims = []
    if len(one) != len(two):
        return None
    for a, b in zip(one, two):
        grown = [d for d in range(a.dim()) if a.dim() == b.dim() and a.shape[d] != b.shape[d]]
        if len(grown) != 1 or (a.shape[grown[0]], b.shape[grown[0]]) != (1, 2) or a.dtype != b.dtype:
            return None
        dims.append(grown[0])
    return dims


def _first(tensors: list[Tensor], dims: list[int]) -> list[Tensor]:
    return [t.narrow(d, 0, 1) for t, d in zip(tensors, dims)]


def _same_bits(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """Whether two lists of tensors agree in every bit; NaN equals itself, and zero is not minus zero."""
    return len(ours) == len(theirs) and all(
        a.shape == b.shape and a.dtype == b.dtype and torch.equal(_as_bytes(a), _as_bytes(b))
        for a, b in zip(ours, theirs)
    )


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _bytes(tensor: Tensor) -> Any:
    """The numbers of a tensor, for a digest."""
    return _as_bytes(tensor.cpu()).numpy()


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _random_state(device: torch.device) -> list[Any]:
    """Of the global generators of torch, numpy and Python."""
    _, keys, *rest = np.random.get_state()
    states = [torch.get_rng_state().numpy().tobytes(), random.getstate(), keys.tobytes(), rest]
    return [*states, torch.cuda.get_rng_state(device).numpy().tobytes()] if device.type == 'cuda' else states


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type


def _settings() -> tuple[tuple[str, str], ...]:
    """Settings of torch that choose kernels or round otherwise, by name."""
    found = [('deterministic', str(torch.are_deterministic_algorithms_enabled()))]
    asked = {f'backends.{name}': operator.attrgetter(name) for name in _SETTINGS}
    asked['float32_matmul_precision'] = lambda _: torch.get_float32_matmul_precision()
    for name, ask in asked.items():
        try:
            value = ask(torch.backends)
            found.append((name, str(value() if callable(value) else value)))
        except (AttributeError, RuntimeError):  # not in this version, or TF32 was set in both the old and the new way
            continue
    return tuple(found)


def _installed() -> dict[str, str]:
    """Versions of those packages that are not always there."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _sources(model: nn.Module) -> str:
    """The digest of the source files of all classes that its modules are made of.

    Raises:
        _NoText: If one has no file.
    """
    digest, names = hashlib.blake2b(digest_size=16), {}
    for base in {base for module in model.modules() for base in type(module).__mro__}:
        if base.__module__.partition('.')[0] not in sys.stdlib_module_names:
            names[base.__module__] = base.__qualname__
    for name in sorted(names):
        try:
            text = Path(sys.modules[name].__file__).read_bytes()
        except (KeyError, AttributeError, TypeError, OSError):
            raise _NoText(f'{name}.{names[name]}') from None
        digest.update(f'{name} {len(text)};'.encode() + text)
    return digest.hexdigest()


def _compiled(model: nn.Module) -> tuple[bool, ...]:
    """Whether backbone and neck run compiled, which may end at any step."""
    parts = (getattr(model, name, None) for name in ('backbone', 'neck'))
    return tuple(getattr(getattr(part, 'forward', None), 'state', {}).get('use', False) for part in parts)


def _looked_at(sample: Any) -> str:
    """All of a sample that a network may look at, without ground truth and the names of images.

    Raises:
        _NoText: If a part of it cannot be told in text.
    """
    if not isinstance(sample, BaseDataElement):
        return _text(sample)
    about = {name: value for name, value in sample.metainfo_items() if name not in _IDS}
    fields = {name: value for name, value in sample.items() if not name.startswith(('gt_', 'ignored_'))}
    return _text([about, fields])


def _about(sample: Any) -> dict[str, Any]:
    """What people may want to know of an image."""
    found = getattr(sample, 'metainfo', {})
    return {name: _plain(found[name]) for name in _ABOUT if name in found}


def _plain(value: Any) -> Any:
    """In JSON's types; what has none as text."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or type(value) in (bool, int, float, str) else str(value)


def _text(value: Any) -> str:
    """A text that is the same in each run, and another one for each other value; tuples are as lists.

    Raises:
        _NoText: If there is none.
    """
    return json.dumps(_tell(value))


def _tell(value: Any) -> Any:
    """In JSON's types; a dict of one key says what the value under it was."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype.hasobject):
        return [_tell(item) for item in value]
    if isinstance(value, dict):
        return dict(dict=sorted(([_text(key), _tell(item)] for key, item in value.items()), key=lambda pair: pair[0]))
    if isinstance(value, (set, frozenset)):
        return dict(set=sorted(map(_text, value)))
    if isinstance(value, np.ndarray):
        return dict(array=[str(value.dtype), value.shape, hashlib.blake2b(value.tobytes(), digest_size=16).hexdigest()])
    if isinstance(value, Tensor) and ReadingStore.keeps(value):
        digest = hashlib.blake2b(_bytes(value), digest_size=16).hexdigest()
        return dict(array=[str(value.dtype), value.shape, digest])
    if isinstance(value, BaseDataElement):
        return dict(fields=_tell(dict(value.all_items())))
    if isinstance(value, (type, FunctionType, BuiltinFunctionType)) and '<' not in value.__qualname__:
        return dict(name=f'{value.__module__}.{value.__qualname__}')
    if isinstance(value, (torch.dtype, torch.device, np.dtype, PurePath, enum.Enum, bytes)):
        return dict(text=f'{type(value).__name__} {value}')
    raise _NoText(f'a {type(value).__name__}')
