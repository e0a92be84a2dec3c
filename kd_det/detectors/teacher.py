"""The teacher: load, check, freeze, run."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn

from kd_det.checkpoint import checkpoint_kind, load_checkpoint_safely, student_state_dict
from kd_det.compat import fill_uninitialised
from kd_det.errors import CheckpointError, ConfigError, did_you_mean
from kd_det.losses._functional import map_tensors
from kd_det.registry import MODELS
from kd_det.taps import TapSet

from .inference import PRECISIONS, Trace, fold_batch_norms, needs_nchw, relative_error, to_plain, trace, unfold, widened
from .teacher_cache import TeacherCache

_KEYS = ('config', 'checkpoint', 'strict', 'precision', 'fold', 'channels_last', 'compile', 'cache')
_RUNS = ('extract_feat', 'tensor', 'predict', 'loss')


class Teacher:
    """A frozen detector that is observed and never trained.

    It is no ``nn.Module``, so that nothing of it gets into ``parameters()``, ``state_dict()``, EMA copies, DDP buckets
    or checkpoints, and it is always in eval mode, drop path and dropout included.

    Args:
        config: Name of an mmdet config (``'mmdet::retinanet/…'``), a path, or a config dict: a whole config or its
            ``model`` alone. Of a kd_det config the student is taken.
        checkpoint: Path or URL of its weights, of plain mmdet, kd_det or mmrazor. None, written out, means random
            weights.
        strict: Whether missing, unexpected or mis-shaped keys of the checkpoint stop the run.
        precision: Of backbone and neck: ``'fp32'``, ``'bf16'``, ``'fp16'``, or ``'auto'``, that of the autocast around
            the step; without one, on a GPU ``'bf16'`` (``'fp16'`` where it has no bf16) and on a CPU ``'fp32'``. Heads
            follow the autocast around the step, but for ``'fp32'``. Outside an autocast readings are float32.
        fold: Fold batch norms into the convolutions before them. A norm that a tap reads stays.
        channels_last: Whether weights and maps lie in NHWC order inside; readings are NCHW. Left out where operators of
            mmcv run, which read memory in NCHW order.
        compile: Let ``torch.compile`` have backbone and neck, if no tap lies inside them. What prevents it is logged.
        cache: ``dict(path=…, limit_gib=50)``: keep its readings on disk, see
            :class:`~kd_det.detectors.teacher_cache.TeacherCache`; None keeps nothing.

    At the first step the log says what was done and by how much the readings differ from those of the plain network.
    Whatever changes them by more than rounding (``precision`` apart) is undone.

    Raises:
        ConfigError: If the config cannot be found or has no model, ``precision`` is none of the four, or a switch is
            neither True nor False.
    """

    #: Whether its weights come from the student, so that it is loaded after it.
    follows = False

    def __init__(
        self,
        config: Any,
        checkpoint: str | None,
        strict: bool = True,
        key: str = 'model.teacher',
        precision: str = 'auto',
        fold: bool = True,
        channels_last: bool = True,
        compile: bool = False,
        cache: dict[str, Any] | None = None,
    ) -> None:
        if precision not in ('auto', *PRECISIONS):
            raise ConfigError(
                f'{key}.precision: found {precision!r}, expected auto, {", ".join(PRECISIONS)}.'
                f'{did_you_mean(str(precision), ["auto", *PRECISIONS])}'
            )
        for option, value in dict(fold=fold, channels_last=channels_last, compile=compile).items():
            if not isinstance(value, bool):
                raise ConfigError(f'{key}.{option}: found {value!r}, expected True or False.')
        self.checkpoint, self.strict, self.key = checkpoint, strict, key
        self.precision, self.fold, self.channels_last, self.compile = precision, fold, channels_last, compile
        model_cfg = _model_config(config, f'{key}.config')
        scope = model_cfg.pop('_scope_', 'mmdet')
        self.cache = TeacherCache.from_config(cache, model_cfg, f'{key}.cache')
        with MODELS.switch_scope_and_registry(scope) as registry:
            self.model: nn.Module = registry.build(model_cfg)
        fill_uninitialised(self.model)
        self.model.requires_grad_(False).eval()
        self.loaded = False
        self.prepared = False
        self._runs: dict[int, tuple[str, dict[Any, int]]] = {}
        self._trace = Trace()
        self._half: torch.dtype | None = None  # of its convolutions, once they were converted
        self._norms: list[nn.Module] = []  # folded: adapters may still read their weights
        self._convert: tuple[dict[str, Any], dict[str, Any]] | None = None

    @classmethod
    def from_config(cls, cfg: Any, key: str = 'model.teacher') -> Teacher:
        """Build from ``model.teacher``, or from one of several.

        Raises:
            ConfigError: For unknown or missing keys.
        """
        if not isinstance(cfg, dict):
            raise ConfigError(
                f'{key}: found {cfg!r}, expected dict(config=<mmdet:: name, path or dict>, checkpoint=<path or URL>).'
            )
        for name in cfg:
            if name not in _KEYS:
                raise ConfigError(
                    f'{key}: unknown key {name!r}; expected {", ".join(_KEYS)}.{did_you_mean(name, _KEYS)}'
                )
        if 'config' not in cfg:
            raise ConfigError(f'{key}.config: missing; expected the name of an mmdet config, a path, or a dict.')
        if 'checkpoint' not in cfg:
            raise ConfigError(
                f'{key}.checkpoint: missing; expected the path or URL of the trained weights '
                '(write checkpoint=None for a teacher with random weights).'
            )
        return cls(**cfg, key=key)

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        return self  # a guest: copies of the wrapper (EMA) share it

    def load(self, device: torch.device | str = 'cpu', dtype: torch.dtype | None = None) -> None:
        """Load the weights, once, report what did not fit, and move to ``device`` and ``dtype``.

        Raises:
            CheckpointError: If the file cannot be read safely, or does not fit while ``strict``.
        """
        if self.loaded:
            return
        if self.checkpoint is None:
            print_log(f'The teacher has random weights ({self.key}.checkpoint=None).', 'current', level=30)
        else:
            load_into(self.model, self.checkpoint, f'{self.key}.checkpoint', self.strict)
        self.model.requires_grad_(False).eval().to(device, dtype)
        self.loaded = True

    def apply_(self, function: Callable[[Tensor], Tensor]) -> None:
        """What ``nn.Module._apply`` does: the teacher moves with the wrapper."""
        if self.loaded:
            self.model._apply(function)
            for norm in self._norms:
                norm._apply(function)

    def see_as(self, student: nn.Module) -> None:
        """Convert the student's normalised images to the teacher's mean, std and channel order, where they differ."""
        theirs, ours = _normalisation(student.data_preprocessor), _normalisation(self.model.data_preprocessor)
        self._convert = None if theirs == ours else (theirs, ours)

    @property
    def converts_images(self) -> bool:
        """Whether the teacher's normalisation differs from the student's."""
        return self._convert is not None

    def images(self, inputs: Tensor, samples: Sequence[Any] | None = None) -> Tensor:
        """The student's input batch as the teacher's preprocessor would have made it.

        Args:
            inputs: Normalised and padded by the student's preprocessor, shape (B, 3, H, W).
            samples: Their ``img_shape`` tells the padding, which gets the teacher's pad value.
        """
        if self._convert is None:
            return inputs
        theirs, ours = self._convert
        mean_s, std_s = (inputs.new_tensor(theirs[name]).view(1, -1, 1, 1) for name in ('mean', 'std'))
        mean_t, std_t = (inputs.new_tensor(ours[name]).view(1, -1, 1, 1) for name in ('mean', 'std'))
        raw = inputs * std_s + mean_s
        if theirs['flip'] != ours['flip']:
            raw = raw.flip(1)
        images = (raw - mean_t) / std_t
        for image, sample in zip(images, samples or ()):
            height, width = sample.metainfo.get('img_shape', image.shape[-2:])[:2]
            image[:, height:] = ours['pad']
            image[:, :, width:] = ours['pad']
        return images

    def observe(self, inputs: Tensor, samples: Sequence[Any] | None, taps: TapSet) -> None:
        """Run as deep as the deepest tap, and no deeper; the readings are then in ``taps``.

        Args:
            inputs: The student's normalised batch, shape (B, 3, H, W).
            samples: The data samples.
            taps: Taps into this teacher.
        """
        images = self.images(inputs, samples)
        if self.cache is None:
            self._run(images, samples, taps)
        else:
            self.cache.observe(self, images, samples, taps)

    def _run(self, images: Tensor, samples: Any, taps: TapSet) -> None:
        """One forward; the readings are plain."""
        self.run(images, samples, taps)
        taps.convert(to_plain)

    def run(self, images: Tensor, samples: Any, taps: TapSet) -> None:
        """One forward, as fast as it was made; the readings are as the network gave them.

        Args:
            images: As its network gets them, shape (B, 3, H, W).
            samples: The data samples.
            taps: Taps into this teacher.
        """
        run, counts = self._runs[id(taps)]
        taps.clear()
        taps.stop_at(counts)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        device = images.device.type
        arithmetic = self._features(device) if run == 'extract_feat' else self._whole(device)
        with torch.inference_mode(), arithmetic, taps:
            run_network(self.model, run, images, samples)

    def depth(self, taps: TapSet) -> tuple[str, dict[Any, int]]:
        """How deep it runs for ``taps``: see :func:`probe_network`."""
        return self._runs[id(taps)]

    def _dtype(self, device: str) -> torch.dtype | None:
        """What it computes in; None for that of its weights."""
        if self._half is not None:
            return self._half
        if self.precision != 'auto':
            return PRECISIONS[self.precision]
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        if device != 'cuda':
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16

    def _features(self, device: str) -> Any:
        """The arithmetic of backbone and neck."""
        dtype = self._dtype(device)
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(device, dtype, enabled=dtype is not torch.float32)

    def _heads(self, device: str) -> Any:
        """The arithmetic of what comes behind: that of the autocast around it, unless float32 was asked for."""
        narrow = self._dtype(device) is not torch.float32
        return contextlib.nullcontext() if narrow else torch.autocast(device, enabled=False)

    @contextlib.contextmanager
    def _whole(self, device: str) -> Iterator[None]:
        """The arithmetic of features and heads in one call of the network."""
        if self._dtype(device) in (None, torch.float32):
            with self._heads(device):
                yield
            return
        known = self.model.__dict__.get('extract_feat')
        inner = self.model.extract_feat

        def extract_feat(*args: Any, **kwargs: Any) -> Any:
            with self._features(device):
                found = inner(*args, **kwargs)
            return map_tensors(widened, found)

        self.model.extract_feat = extract_feat
        try:
            yield
        finally:
            del self.model.extract_feat
            if known is not None:
                self.model.extract_feat = known

    def prepare(self, inputs: Tensor, samples: Sequence[Any] | None, taps: TapSet) -> None:
        """Fold, convert and compile, once, and say what it does to the readings of the first image.

        Args:
            inputs: The student's normalised batch, shape (B, 3, H, W).
            samples: The data samples.
            taps: Taps into this teacher.
        """
        if self.prepared:
            return
        self.prepared = True
        if self.cache is not None:
            self.cache.begin(self.model)
        if taps:
            self._prepare(inputs[:1], samples[:1] if samples else samples, taps)

    def _prepare(self, inputs: Tensor, sample: Any, taps: TapSet) -> None:
        image = self.images(inputs, sample)
        dtype = self._dtype(image.device.type)
        if not (self.fold or self.channels_last or self.compile or dtype):
            return
        plain = self._plain_readings(image, sample, taps)
        done = []
        if self.fold:
            read = [recorder._module for recorder in taps.recorders.values()]
            folded = fold_batch_norms(self.model, self._trace.pairs, read)
            error = relative_error(self._plain_readings(image, sample, taps), plain)
            if error < _rounding(image):
                self._norms = [norm for *_, norm in folded]
                done.append(f'{len(folded)} batch norms folded')
            else:
                unfold(folded)
                done.append(f'batch norms left as they are, since folded ones changed readings by {error:.1e}')
        if self.channels_last:
            done.append(self._reorder(image, sample, taps, plain))
        if dtype in (torch.bfloat16, torch.float16):
            for part in (getattr(self.model, name, None) for name in ('backbone', 'neck')):
                _convert_weights(part, dtype)
            self._half = dtype
            done.append(str(dtype).removeprefix('torch.'))
        if self.compile:
            done.append(self._compile(taps))
        with _same_draws(image):
            self._run(image, sample, taps)
        error = relative_error(taps.tensors(), plain)
        name = self.key.removeprefix('model.')
        print_log(f'{name}: {", ".join(done) or "plain"}; readings differ by {error:.1e} (rms, relative).', 'current')

    def _reorder(self, image: Tensor, sample: Any, taps: TapSet, plain: list[Tensor]) -> str:
        """NHWC order, unless it changes readings; says what came of it."""
        self.channels_last = False
        operators = needs_nchw(self.model)
        if operators:
            return f'NCHW order for {", ".join(operators)}'
        self.model.to(memory_format=torch.channels_last)
        try:
            found = self._plain_readings(image.contiguous(memory_format=torch.channels_last), sample, taps)
            why = (
                f'changed readings by {error:.1e}' if (error := relative_error(found, plain)) > _rounding(image) else ''
            )
        except Exception as exception:
            why = f'failed with {type(exception).__name__}'
        if why:
            self.model.to(memory_format=torch.contiguous_format)
            return f'NCHW order, since NHWC {why}'
        self.channels_last = True
        return 'channels last'

    def _plain_readings(self, image: Tensor, sample: Any, taps: TapSet) -> list[Tensor]:
        """Readings of the network as it is, in float32; what it draws is the same each time."""
        run, counts = self._runs[id(taps)]
        taps.clear()
        taps.stop_at(counts)
        with _same_draws(image), torch.no_grad(), torch.autocast(image.device.type, enabled=False), taps:
            run_network(self.model, run, image, copy.deepcopy(sample))
        return taps.tensors()

    def _compile(self, taps: TapSet) -> str:
        """Compile backbone and neck where nothing inside them is read; says what came of it."""
        done = []
        for name in ('backbone', 'neck'):
            part = getattr(self.model, name, None)
            if part is None:
                continue
            inside = set(part.modules()) - {part}
            if any(recorder._module in inside for recorder in taps.recorders.values()):
                done.append(f'{name} not compiled, because a tap lies inside it')
                continue
            eager = part.forward
            part.forward = _compiled_or_eager(eager, f'{self.key}: {name}')
            done.append(f'{name} compiled')
        return ', '.join(done)

    def release(self, inputs: Tensor, samples: Sequence[Any] | None, taps: TapSet) -> list[str]:
        """Let go of parts that its readings do not need, such as heads behind the last tap.

        Args:
            inputs: The student's normalised batch, shape (B, 3, H, W).
            samples: The data samples.
            taps: Taps into this teacher.

        Returns:
            The names of the children that are gone.
        """
        idle = [
            name
            for name, child in self.model.named_children()
            if any(True for _ in child.parameters()) and not self._trace.ran.intersection(child.modules())
        ]
        if self.prepared or not idle:
            return []
        if self._runs[id(taps)][0] == 'extract_feat':
            for name in idle:
                delattr(self.model, name)
            return idle
        sample = samples[:1] if samples else samples
        image = self.images(inputs[:1], sample)
        expected, gone = self._plain_readings(image, sample, taps), []
        for name in idle:  # among the heads, weights may be read without a call: the queries of a DETR
            child = getattr(self.model, name)
            delattr(self.model, name)
            try:
                needed = relative_error(self._plain_readings(image, sample, taps), expected) > _rounding(image)
            except Exception:
                needed = True
            if needed:
                setattr(self.model, name, child)
            else:
                gone.append(name)
        taps.clear()
        return gone

    def network(self, inputs: Tensor, samples: Any, mode: str) -> Any:
        """What its whole detector gives, in the precision and the order of its weights.

        Args:
            inputs: As its own preprocessor gives them, shape (B, 3, H, W).
            samples: The data samples.
            mode: ``'predict'`` or ``'tensor'``.
        """
        if self.channels_last and self.prepared:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), self._whole(inputs.device.type):
            return self.model(inputs, samples, mode=mode)

    def probe(self, inputs: Tensor, samples: Sequence[Any], taps: TapSet, key: str) -> None:
        """Find out how deep the taps lie, and read them once.

        Raises:
            ConfigError: If a tap is never reached.
        """
        images = self.images(inputs, samples)
        with torch.no_grad():
            self._runs[id(taps)] = run, counts = probe_network(self.model, images, samples, taps, key)
            if self.cache is not None:
                self.cache.check_run(run)
            with trace(self.model) as self._trace:  # once more, as short as every later run
                taps.clear()
                taps.stop_at(counts)
                with taps:
                    run_network(self.model, run, images, copy.deepcopy(samples))

    def observe_rois(self, features: Any, rois: Tensor, stage: int | None, taps: TapSet) -> None:
        """Score the student's RoIs with the teacher's second stage.

        Args:
            features: The teacher's feature maps.
            rois: Shape (N, 5): image index and box, in pixels of the network's input.
            stage: Which stage of a cascade; None for a single second stage.
            taps: Taps inside ``roi_head``.
        """
        taps.clear()
        head = self.model.roi_head
        with torch.no_grad(), self._heads(rois.device.type), taps:
            head._bbox_forward(features, rois) if stage is None else head._bbox_forward(stage, features, rois)
        taps.convert(to_plain)


class EMATeacher(Teacher):
    """The moving average of the student's weights as its teacher (mean teacher).

    It starts as a copy of the student at the first step. :class:`~kd_det.hooks.EMATeacherHook` moves it after each step
    and keeps it in the checkpoints, apart from the student.

    Reference: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, arXiv 1703.01780.

    Args:
        student: The student's config.
        momentum: Share of the student in each move, mmengine's ``momentum``.
        key: The config key to blame.

    Raises:
        ConfigError: If the momentum is not between 0 and 1.
    """

    follows = True

    def prepare(self, *args: Any) -> None:
        """Its weights move: nothing may be folded or converted."""

    def release(self, *args: Any) -> list[str]:
        """It has all that the student has."""
        return []

    def _dtype(self, device: str) -> None:
        """That of its weights, or of the autocast around the step."""

    def __init__(self, student: dict[str, Any], momentum: float = 0.001, key: str = 'model.teacher') -> None:
        is_number = isinstance(momentum, (int, float)) and not isinstance(momentum, bool)
        if not is_number or not 0 < momentum < 1:
            raise ConfigError(f'{key}.momentum: found {momentum!r}, expected a share between 0 and 1, such as 0.001.')
        super().__init__(student, None, key=key, channels_last=False)
        self.averaged = ExponentialMovingAverage(self.model, momentum)
        self.model = self.averaged.module.eval()

    def load(self, device: torch.device | str = 'cpu', dtype: torch.dtype | None = None) -> None:
        """Move to ``device`` and ``dtype``, once; :meth:`follow` gives the weights."""
        if not self.loaded:
            self.averaged.to(device, dtype)
            self.loaded = True

    def apply_(self, function: Callable[[Tensor], Tensor]) -> None:
        self.averaged._apply(function)

    @torch.no_grad()
    def follow(self, student: nn.Module) -> None:
        """Move towards the student; the first time, become its copy."""
        self.averaged.update_parameters(student)

    def observe(self, inputs: Tensor, samples: Sequence[Any] | None, taps: TapSet) -> None:
        if not int(self.averaged.steps):
            raise ConfigError(
                f"{self.key}: nobody moves the average; add dict(type='kd_det.EMATeacherHook') to custom_hooks."
            )
        super().observe(inputs, samples, taps)


def _rounding(image: Tensor) -> float:
    """What may change by rounding, relative: a folded ResNet differs by 1e-6; TF32 on a GPU by 1e-3 and more."""
    return 1e-4 if image.device.type == 'cpu' else 1e-2


def _same_draws(image: Tensor) -> Any:
    """Random numbers drawn inside are drawn again afterwards: a second stage samples its rows."""
    return torch.random.fork_rng([image.device] if image.device.type == 'cuda' else [])


def _convert_weights(part: nn.Module | None, dtype: torch.dtype) -> None:
    """Convolutions and linear layers to half precision; what autocast keeps in float32 stays."""
    for module in part.modules() if part is not None else ():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(dtype)


def _compiled_or_eager(eager: Callable[..., Any], what: str) -> Callable[..., Any]:
    """A compiled function that falls back to the eager one, for good, at its first error."""
    compiled = torch.compile(eager)
    state = dict(use=True)

    def call(*args: Any, **kwargs: Any) -> Any:
        if state['use']:
            try:
                return compiled(*args, **kwargs)
            except Exception as error:
                state['use'] = False
                first = str(error).strip().splitlines()[0] if str(error).strip() else ''
                print_log(f'{what} runs uncompiled: {type(error).__name__}: {first}', 'current', level=30)
        return eager(*args, **kwargs)

    call.state = state  # a cache asks for it
    return call


def make_teachers(cfg: Any, student: dict[str, Any], key: str = 'model.teacher') -> dict[str, Teacher]:
    """The teachers by name; the name of a single one is empty.

    Args:
        cfg: ``model.teacher``: one teacher, several by name, or None.
        student: The student's config, for a mean teacher.
        key: The config key to blame.

    Raises:
        ConfigError: If they cannot be built, or have the name of another network.
    """
    if cfg is None:
        return {}
    names = named_teachers(cfg)
    for name, one in names.items():
        if name in ('student', 'teacher'):
            raise ConfigError(f'{key}: {name!r} is a name that taps use for another network; choose another one.')
        if name and not name.isidentifier():
            raise ConfigError(f'{key}: {name!r} cannot be the name of a teacher; expected letters, digits and _.')
        if not isinstance(one, dict):
            raise ConfigError(
                f'{key}{"." * bool(name)}{name}: found {one!r}, expected dict(config=<mmdet:: name, path or dict>, '
                'checkpoint=<path or URL>).'
            )
    teachers: dict[str, Teacher] = {}
    for name, one in names.items():
        its_key = f'{key}.{name}' if name else key
        if one.get('ema'):
            options = {option: value for option, value in one.items() if option != 'ema'}
            for option in options:
                if option == 'cache':
                    raise ConfigError(f'{its_key}.cache: a moving average reads otherwise after each step; drop cache.')
                if option != 'momentum':
                    raise ConfigError(f'{its_key}: unknown key {option!r}; expected ema=True and momentum.')
            teachers[name] = EMATeacher(student, key=its_key, **options)
        else:
            teachers[name] = Teacher.from_config(one, its_key)
    return teachers


def named_teachers(cfg: Any) -> dict[str, Any]:
    """The configs of the teachers in ``model.teacher`` by name; a single one's name is empty."""
    several = isinstance(cfg, dict) and bool(cfg) and all(isinstance(one, dict) for one in cfg.values())
    return dict(cfg) if several and not {'config', 'checkpoint', 'ema', 'cache'} & set(cfg) else {'': cfg}


def run_network(model: nn.Module, run: str, inputs: Tensor, samples: Any) -> Any:
    """Run a detector: ``'extract_feat'`` (backbone and neck), ``'tensor'`` (and heads), ``'predict'`` or ``'loss'``.

    The last two reach heads that ``'tensor'`` passes by: it calls a DETR head's ``forward`` directly, without hooks.
    """
    return model.extract_feat(inputs) if run == 'extract_feat' else model(inputs, samples, mode=run)


def probe_network(model: nn.Module, inputs: Tensor, samples: Any, taps: TapSet, key: str) -> tuple[str, dict[Any, int]]:
    """Find the shallowest run that reaches all taps.

    Returns:
        Its name and how often each source ran in it. The readings are in ``taps``.

    Raises:
        ConfigError: If no run reaches all taps.
    """
    if not taps:
        return 'extract_feat', {}
    needs_loss = any(kind == 'method' for _, kind, _ in taps.recorders)
    for run in _RUNS[-1:] if needs_loss else _RUNS:
        taps.clear()
        taps.stop_at(None)
        try:
            with taps:
                run_network(model, run, inputs, copy.deepcopy(samples))
        except Exception:
            if run == _RUNS[-1]:
                raise
            continue
        counts = taps.counts()
        if all(counts.values()):
            return run, counts
    silent = [r.source for s, r in taps.recorders.items() if not counts[s]]
    raise ConfigError(f'{key}: {", ".join(map(repr, silent))} never runs in {type(model).__name__}.')


def load_into(model: nn.Module, source: str, key: str, strict: bool = True) -> None:
    """Load a checkpoint of plain mmdet, kd_det or mmrazor into a detector and report what did not fit.

    Args:
        model: The detector.
        source: Path or URL.
        key: The config key to blame.
        strict: Whether anything that does not fit stops the run.

    Raises:
        CheckpointError: See ``strict``; always if nothing fits at all.
    """
    checkpoint = load_checkpoint_safely(source, key=key)
    kind = checkpoint_kind(checkpoint['state_dict'])
    weights = student_state_dict(checkpoint)
    own = model.state_dict()
    shapes = {
        name: (tuple(value.shape), tuple(own[name].shape))
        for name, value in weights.items()
        if name in own and value.shape != own[name].shape
    }
    fitting = type(weights)((name, value) for name, value in weights.items() if name not in shapes)
    fitting._metadata = getattr(weights, '_metadata', {})
    missing, unexpected = model.load_state_dict(fitting, strict=False)
    missing = [name for name in missing if name not in shapes and not name.endswith('num_batches_tracked')]
    found = {
        'missing': missing,
        'unexpected': list(unexpected),
        'mis-shaped': [f'{name} {file} for {wanted}' for name, (file, wanted) in shapes.items()],
    }
    report = '; '.join(f'{len(names)} {what} ({_few(names)})' for what, names in found.items() if names)
    wrapper = '' if kind == 'mmdet' else f', the student of a {kind} checkpoint,'
    if not report:
        print_log(f'Loaded {source}{wrapper} into {type(model).__name__}: all {len(own)} tensors fit.', 'current')
    elif strict or len(fitting) == len(unexpected):
        raise CheckpointError(
            f'{key}: {source!r}{wrapper} does not fit {type(model).__name__}: {report}. Expected the weights of '
            f'exactly this architecture and number of classes; correct {key.rpartition(".")[0]}.config, or set '
            f'{key.rpartition(".")[0]}.strict=False.'
        )
    elif is_main_process():
        print_log(f'Loaded {source}{wrapper} into {type(model).__name__}, but: {report}.', 'current', level=30)


def _few(names: list[str], n: int = 3) -> str:
    return ', '.join(names[:n]) + (', …' if len(names) > n else '')


def _model_config(config: Any, key: str) -> dict[str, Any]:
    """The ``model`` dict of a teacher given as name, path or dict."""
    if isinstance(config, (str, Path)):
        from kd_det.engine.config import load_config  # it needs the runner, which this module does not

        config = load_config(config, key=key)
    if not isinstance(config, (dict, Config)):
        raise ConfigError(
            f'{key}: found {type(config).__name__}, expected the name of an mmdet config, a path, or a dict.'
        )
    scope = config.get('default_scope', None) or 'mmdet'
    model = config if 'type' in config and 'model' not in config else config.get('model')
    if not isinstance(model, dict) or 'type' not in model:
        raise ConfigError(
            f"{key}: no model in it; expected a key 'model' with 'type'.{did_you_mean('model', list(config))}"
        )
    model = copy.deepcopy(ConfigDict(model))
    if 'student' in model and 'teacher' in model:
        model = ConfigDict(model['student'])
    if config is not model and 'data_preprocessor' not in model and config.get('data_preprocessor'):
        model['data_preprocessor'] = config['data_preprocessor']
    model.setdefault('_scope_', scope)
    return model


def _normalisation(preprocessor: Any) -> dict[str, Any]:
    enabled = getattr(preprocessor, '_enable_normalize', False)
    mean = preprocessor.mean.flatten().tolist() if enabled else [0.0, 0.0, 0.0]
    std = preprocessor.std.flatten().tolist() if enabled else [1.0, 1.0, 1.0]
    return dict(
        mean=mean,
        std=std,
        flip=bool(getattr(preprocessor, '_channel_conversion', False)),
        pad=float(getattr(preprocessor, 'pad_value', 0) or 0),
    )
