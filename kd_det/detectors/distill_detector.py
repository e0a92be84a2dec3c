"""The wrapper: a student, a frozen teacher, and the terms between them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import SampleList
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from torch import Tensor, nn

from kd_det.adapters.rows import extracted_rois
from kd_det.compat import fill_uninitialised
from kd_det.errors import ConfigError, did_you_mean
from kd_det.losses._functional import map_tensors
from kd_det.registry import MODELS
from kd_det.taps import Tap, TapSet

from .plan import PROBES, Plan, probe_batch, raise_together, untouched
from .teacher import Teacher, make_teachers, probe_network
from .teacher_cache import refuse_uncacheable
from .term import Term, is_default_align


@dataclass
class _SecondStage:
    """A teacher's second stage on the student's RoIs.

    Attributes:
        owner: The teacher's name.
        features: The teacher's maps that the RoIs are pooled from.
        rois: Where the student's RoIs are read.
        stage: The stage of a cascade; None for a single one.
        taps: What is read in it.
    """

    owner: str
    features: Tap
    rois: Tap
    stage: int | None
    taps: TapSet


@MODELS.register_module()
class DistillDetector(BaseDetector):
    """Trains a student detector with a teacher, and is the student in everything else.

    ``parameters()``, ``state_dict()`` and checkpoints hold the student (``student.*``) and the trainable parts of the
    terms (``distill.*``), never the teacher. ``predict``, ``'tensor'`` mode, test-time augmentation and testing run
    the student alone and need no teacher weights.

    One step: the teacher is observed (no grad, eval mode, only as deep as its deepest tap), the student computes its
    own losses while its taps are filled, each term compares its readings.

    Args:
        student: Config of an mmdet detector.
        teacher: ``dict(config=…, checkpoint=…)``, see :class:`~kd_det.detectors.Teacher`; several by name,
            ``dict(big=dict(config=…, checkpoint=…), other=dict(…))``, whose taps are ``'big:neck'``;
            ``dict(ema=True)``, the moving average of the student (:class:`~kd_det.detectors.EMATeacher`); or None, if
            all terms teach the student from itself (``teacher='student:backbone.layer4'``).
        distill: The terms by name, see :class:`~kd_det.detectors.Term`.
        inherit: Parts of the student that start from the teacher's weights, after the student's own ``init_weights``:
            module paths (``['neck', 'bbox_head']``), or a dict of student path → teacher path (``'big:neck'``).
        task_weights: Factors of the student's own losses by name, such as ``dict(loss_cls=0.5)``.
        data_preprocessor: The student's, if its config has none.
        init_cfg: Not used: the student initialises itself.

    Raises:
        ConfigError: For anything wrong in the config; several errors are shown together.

    Example:
        >>> model = MODELS.build(dict(
        ...     type='kd_det.DistillDetector', student=student_cfg,
        ...     teacher=dict(config='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py', checkpoint='r101.pth'),
        ...     inherit=['neck', 'bbox_head'],
        ...     distill=dict(cwd=dict(student='neck', teacher='neck', loss=dict(type='kd_det.CWDLoss'), weight=10.))))
    """

    def __init__(
        self,
        student: dict[str, Any] | None = None,
        teacher: dict[str, Any] | None = None,
        distill: dict[str, Any] | None = None,
        inherit: Sequence[str] | Mapping[str, str] = (),
        task_weights: Mapping[str, float] | None = None,
        data_preprocessor: Any = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__()
        if not isinstance(student, dict) or 'type' not in student:
            raise ConfigError(f'model.student: found {student!r}, expected the config of an mmdet detector.')
        if not isinstance(distill, dict) or not distill:
            raise ConfigError(
                f'model.distill: found {distill!r}, expected at least one term, '
                "such as dict(cwd=dict(student='neck', teacher='neck', loss=dict(type='kd_det.CWDLoss')))."
            )
        student = ConfigDict(student)
        if data_preprocessor is not None:
            student.setdefault('data_preprocessor', data_preprocessor)
        scope = student.pop('_scope_', 'mmdet')
        plain = copy.deepcopy(student)
        with MODELS.switch_scope_and_registry(scope) as registry:
            self.student: nn.Module = registry.build(student)
        fill_uninitialised(self.student)
        self.data_preprocessor = self.student.data_preprocessor
        self.task_weights = dict(task_weights or {})
        self.inherit = dict(inherit) if isinstance(inherit, Mapping) else {path: path for path in _strings(inherit)}

        errors: list[ConfigError] = []
        terms: dict[str, Term] = {}
        for name, cfg in distill.items():
            try:
                terms[name] = Term(name, cfg)
            except ConfigError as error:
                errors.append(error)
        raise_together(errors)
        self.distill = nn.ModuleDict(terms)
        #: By name; a single teacher's name is empty.
        self.teachers = make_teachers(teacher, ConfigDict(plain, _scope_=scope))
        for one in self.teachers.values():
            one.see_as(self.student)
        self._make_taps()
        refuse_uncacheable(self.teachers, self.terms, self._whose, self._second)
        self.plan = self._make_plan()
        self._register_load_state_dict_pre_hook(self._accept_plain_student)

    # --- set-up -------------------------------------------------------------------------------------------------------

    @property
    def teacher(self) -> Teacher | None:
        """The teacher, the first of several; None in self-distillation."""
        return next(iter(self.teachers.values()), None)

    @property
    def terms(self) -> list[Term]:
        """The terms, in the order of the config."""
        return list(self.distill.values())

    def _whose(self, owner: str, key: str) -> str:
        """The name of the network that ``owner`` means: ``'student'`` or a key of ``teachers``.

        Raises:
            ConfigError: If there is no such network.
        """
        if owner == 'student' or owner in self.teachers:
            return owner
        names = ', '.join(map(repr, filter(None, self.teachers))) or 'a single one, without a name'
        if not owner and len(self.teachers) == 1:
            return next(iter(self.teachers))
        if not self.teachers:
            raise ConfigError(
                'model.teacher: missing; expected dict(config=<mmdet:: name, path or dict>, checkpoint=<path or URL>) '
                f"for {key}, or there a tap of the student itself, such as 'student:backbone.layer4'."
            )
        if not owner:
            raise ConfigError(
                f'{key}: there are several teachers ({names}); '
                f"expected whose tap it is, such as '{next(iter(self.teachers))}:neck'."
            )
        raise ConfigError(
            f'{key}: there is no teacher {owner!r}; model.teacher has {names}.'
            f'{did_you_mean(owner, list(self.teachers))}'
        )

    def _network(self, name: str) -> nn.Module:
        return self.student if name == 'student' else self.teachers[name].model

    def _make_taps(self) -> None:
        """Resolve all taps; the second stage of a teacher is observed apart, on the student's RoIs."""
        errors: list[ConfigError] = []
        student_taps: list[Tap] = []
        dense: dict[str, list[Tap]] = {name: [] for name in self.teachers}
        second: dict[tuple[str, str], tuple[str, Tap, Tap, int | None]] = {}
        for term in self.terms:
            try:
                network = self._network(self._whose(term.teacher_name, f'{term.key}.teacher'))
                heads = [
                    taps[0].module(where, f'{term.key}.{side}')
                    for side, taps, where in (
                        ('student', term.student_taps, self.student),
                        ('teacher', term.teacher_taps, network),
                    )
                ]
                term.adapter.check_modules(*heads, term.key)
                term.adapter.bind(self.student, network, term.key)  # it may know better than a tap why it cannot serve
                for owner, tap, key in term.taps():
                    owner = self._whose(owner, key)
                    tap.module(self._network(owner), key)
                    if owner == 'student':
                        student_taps.append(tap)
                    elif tap.path.split('.')[0] == 'roi_head':
                        rois, stage = self._roi_source(term, owner, tap)
                        second[term.name, tap.text] = (owner, tap, rois, stage)
                        student_taps.append(rois)
                    else:
                        dense[owner].append(tap)
                if is_default_align(term.adapter):
                    term.adapter.layout_is_fixed = _is_head_output(self.student, term.student_tap)
            except ConfigError as error:
                errors.append(error)
        errors += self._inherit_errors()
        raise_together(errors)
        #: (term, tap) → the second stage that reads it; one runs once for all terms that read it on the same RoIs.
        self._second: dict[tuple[str, str], _SecondStage] = {}
        for owner, _, rois, stage in second.values():
            group = {
                place: tap
                for place, (o, tap, r, s) in second.items()
                if (o, r.source, s) == (owner, rois.source, stage)
            }
            if next(iter(group)) not in self._second:
                model = self.teachers[owner].model
                features = Tap.parse('neck' if model.with_neck else 'backbone')
                dense[owner].append(features)
                taps = TapSet(model, group.values(), 'teacher', guest=True)
                self._second.update(dict.fromkeys(group, _SecondStage(owner, features, rois, stage, taps)))
        self._student_taps = TapSet(self.student, student_taps, 'student')
        self._teacher_taps = {
            name: TapSet(teacher.model, dense[name], 'teacher', guest=True) for name, teacher in self.teachers.items()
        }

    def _inherit_errors(self) -> list[ConfigError]:
        """Errors for parts that the student or the teacher to inherit from does not have."""
        errors = []
        for path, source in self.inherit.items():
            try:
                Tap.parse(path, 'model.inherit, student').module(self.student, 'model.inherit, student')
                tap = Tap.parse(source, 'model.inherit, teacher')
                owner = self._whose(tap.owner, 'model.inherit')
                tap.module(self._network(owner), 'model.inherit, teacher')
                if owner == 'student' or self.teachers[owner].follows:
                    raise ConfigError(
                        f'model.inherit: {source!r} is of the student or of its average, which have nothing to give '
                        f'it; expected a part of a trained teacher. Remove {path!r} from inherit.'
                    )
            except ConfigError as error:
                errors.append(error)
        return errors

    def _roi_source(self, term: Term, owner: str, tap: Tap) -> tuple[Tap, int | None]:
        """Where the student's sampled RoIs are read for a tap of a teacher, and the stage of the teacher's cascade."""
        if not hasattr(self.student, 'roi_head'):
            raise ConfigError(
                f"{term.key}.teacher: {tap.text!r} is in the second stage, which scores the student's "
                f'sampled RoIs, but the student ({type(self.student).__name__}) has none; expected a two-stage '
                "student, or a tap such as 'neck'."
            )
        stages = []
        for network, path in ((self.student, term.student_tap.path), (self._network(owner), tap.path)):
            parts = path.split('.')
            is_cascade = isinstance(network.roi_head.bbox_head, nn.ModuleList)
            number = parts[2] if parts[0] == 'roi_head' and len(parts) > 2 and parts[2].isdigit() else None
            if is_cascade and number is None and parts[0] != 'roi_head':
                number = '0'  # the proposals' own RoIs
            if is_cascade and number is None:
                raise ConfigError(
                    f'{term.key}: {path!r}: {type(network).__name__} has {len(network.roi_head.bbox_head)} stages; '
                    f"expected one of them, such as 'roi_head.bbox_head.0[0]'."
                )
            stages.append(int(number) if is_cascade else None)
        middle = '' if stages[0] is None else f'.{stages[0]}'
        return Tap.parse(f'roi_head.bbox_roi_extractor{middle}@in'), stages[1]

    def _make_plan(self) -> Plan:
        """One dry forward of all networks; see :mod:`kd_det.detectors.plan`."""
        device = next(self.student.parameters()).device
        failure: Exception | None = None
        with untouched(self.student, *(teacher.model for teacher in self.teachers.values())):
            for size, masks in PROBES:
                inputs, samples = probe_batch(size, device, masks)
                try:
                    self._student_taps.watch_versions()
                    probe_network(self.student, inputs, samples, self._student_taps, 'student')
                    self._student_taps.copy_overwritten()
                    for name, teacher in self.teachers.items():
                        taps = self._teacher_taps[name]
                        taps.watch_versions()
                        teacher.probe(inputs, samples, taps, 'teacher')
                        taps.copy_overwritten()
                    break
                except ConfigError:
                    raise
                except Exception as error:
                    failure = error if masks else failure
                    if (size, masks) == PROBES[-1]:
                        raise ConfigError(
                            'model: the dry forward of student and teacher failed with '
                            f'{type(failure).__name__}: {failure}. Check model.student and model.teacher.config.'
                        ) from failure
            plan = Plan(size)
            errors = self._mode_errors(inputs, samples)
            context = self._context(inputs, samples)
            for term in self.terms:
                try:
                    readings = self._readings(term, context)
                    plan.add(term, term.prepare(*readings), *readings[:2])
                except ConfigError as error:
                    errors.append(error)
        self._clear()
        raise_together(errors)
        for name, teacher in self.teachers.items():
            if teacher.converts_images:
                who = f'The teacher {name!r}' if name else 'The teacher'
                plan.notes.append(f'{who} sees the images with its own mean, std and channel order.')
        return plan

    def _mode_errors(self, inputs: Tensor, samples: SampleList) -> list[ConfigError]:
        """Errors for taps at heads that compute other numbers while training, as the teacher never does."""
        heads: dict[nn.Module, list[tuple[Term, Tap]]] = {}
        for term, tap in ((each, tap) for each in self.terms for tap in each.student_taps):
            # a second stage draws its rows at random
            if tap.path.split('.')[0] != 'roi_head' and _is_head_output(self.student, tap):
                heads.setdefault(tap.module(self.student), []).append((term, tap))
        errors = []
        for module, users in heads.items():
            evaluated = [self._student_taps.read(tap, f'{term.key}.student') for term, tap in users]
            module.training = True  # the head itself; its norm layers and dropout stay in eval mode
            probe_network(self.student, inputs, samples, self._student_taps, 'student')
            trained = [self._student_taps.read(tap, f'{term.key}.student') for term, tap in users]
            module.training = False
            probe_network(self.student, inputs, samples, self._student_taps, 'student')
            errors += [
                ConfigError(
                    f'{term.key}.student: {tap.text!r}: {type(module).__name__} gives other numbers in training '
                    "than in evaluation, where the teacher always is; expected a tap such as 'bbox_head[0]', or a "
                    'layer inside the head.'
                )
                for (term, tap), before, after in zip(users, evaluated, trained)
                if not _same_numbers(before, after)
            ]
        return errors

    def init_weights(self) -> None:
        """Initialise the student as its config says, load the teacher, start inherited parts from it, log the plan."""
        self._load_teachers(last=False)  # first, so that a wrong checkpoint stops the run before anything is downloaded
        self.student.init_weights()
        for loss in (loss for term in self.terms for loss in term.losses if hasattr(loss, 'init_weights')):
            loss.init_weights()
        for path, source in self.inherit.items():
            report = self._inherit(path, source)
            print_log(report, 'current', logging.WARNING if 'did not fit' in report else logging.INFO)
        print_log(self.plan.table(), 'current')
        self._is_init = True

    def _load_teachers(self, last: bool = True) -> None:
        """Load what is not loaded; without ``last``, only what does not need the student's weights."""
        like = next(self.student.parameters())
        for teacher in self.teachers.values():
            if last or not teacher.follows:
                teacher.load(like.device, like.dtype)

    def prepare_teacher(self, name: str, inputs: Tensor, samples: SampleList) -> None:
        """Let go of what no reading of a teacher needs, and make it fast; once, before it is first asked.

        Args:
            name: Of the teacher; empty for a single one.
            inputs: Normalised images, shape (B, 3, H, W).
            samples: Their data samples.
        """
        teacher = self.teachers[name]
        if teacher.prepared:
            return
        busy = {second.owner for second in self._second.values()}
        for term in self.terms:
            if term.adapter.runs_teacher:
                busy |= {self._whose(owner, key) for owner, _, key in term.taps()}
        taps = self._teacher_taps[name]
        gone = [] if name in busy else teacher.release(inputs, samples, taps)
        if gone:
            print_log(f'{teacher.key.removeprefix("model.")}: no tap needs {", ".join(gone)}; freed.', 'current')
        teacher.prepare(inputs, samples, taps)

    @torch.no_grad()
    def _inherit(self, path: str, source: str) -> str:
        """Copy all tensors of equal name and shape from the teacher's part to the student's; returns the report.

        Raises:
            ConfigError: If nothing fits.
        """
        ours = self.student.get_submodule(path).state_dict()
        tap = Tap.parse(source)
        theirs = self._network(self._whose(tap.owner, 'model.inherit')).get_submodule(tap.path).state_dict()
        fit = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
        for name in fit:
            ours[name].copy_(theirs[name])
        rest = [
            f'{name} {tuple(theirs[name].shape)} for {tuple(ours[name].shape)}'
            if name in theirs
            else f'{name} (absent)'
            for name in ours
            if name not in fit
        ]
        if not fit and ours:
            raise ConfigError(
                f"model.inherit: nothing of the teacher's {source!r} fits the student's {path!r} "
                f'({"; ".join(rest[:3])}); expected equal shapes. Remove {path!r} from inherit.'
            )
        report = f'Inherited {path!r} from the teacher: {len(fit)} of {len(ours)} tensors copied'
        return report + (f'; did not fit: {"; ".join(rest)}.' if rest else '.')

    def _accept_plain_student(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A plain checkpoint of the student (``load_from``, testing) loads too."""
        keys = [key for key in state_dict if key.startswith(prefix)]
        if keys and not any(key.startswith((f'{prefix}student.', f'{prefix}distill.')) for key in keys):
            for key in keys:
                state_dict[f'{prefix}student.{key[len(prefix) :]}'] = state_dict.pop(key)

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> DistillDetector:
        super()._apply(fn, *args, **kwargs)
        for teacher in self.__dict__.get('teachers', {}).values():
            teacher.apply_(fn)
        return self

    def __getattr__(self, name: str) -> Any:
        """What the wrapper does not have is the student's: hooks that reach for ``model.bbox_head`` find it."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            student = self.__dict__.get('_modules', {}).get('student')
            if student is None or name.startswith('_'):
                raise
            return getattr(student, name)

    # --- one step -----------------------------------------------------------------------------------------------------

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Any]:
        """The student's task losses and one ``loss_<term>`` per term.

        Args:
            batch_inputs: Normalised images, shape (B, 3, H, W).
            batch_data_samples: Their data samples.

        Raises:
            ConfigError: If a term's name hides a task loss, or ``task_weights`` names no task loss.
        """
        self._load_teachers()
        try:
            context = self._context(batch_inputs, batch_data_samples)
            running = [term for term in self.terms if term.factor]
            active = {self._whose(owner, key) for term in running for owner, _, key in term.taps()}
            for name in active - {'student'}:
                self.prepare_teacher(name, batch_inputs, batch_data_samples)
                self.teachers[name].observe(batch_inputs, batch_data_samples, self._teacher_taps[name])
            self._student_taps.clear()
            with self._student_taps:
                losses = self._weigh(dict(self.student.loss(batch_inputs, batch_data_samples)))
            for term in self.terms:
                parts = self._compare(term, context) if term.factor else term.idle()
                for name, value in parts.items():
                    if name in losses:
                        raise ConfigError(
                            f'{term.key}: its loss would be called {name!r} as one of the student is; rename the term.'
                        )
                    losses[name] = value
        finally:
            self._clear()
        return losses

    def _compare(self, term: Term, context: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of one term.

        Raises:
            ConfigError: If no gradient could ever get from the term into the student.
        """
        student, teacher, context = self._readings(term, context)
        if self.training and torch.is_grad_enabled() and not _carries_gradient(student):
            raise ConfigError(
                f'{term.key}.student: {term.student_tap.text!r} carries no gradient; the student would not '
                'learn from it. The part is frozen (frozen_stages) or lies inside gradient checkpointing (with_cp). '
                'Tap a later module.'
            )
        return term(student, teacher, context)

    def _context(self, inputs: Tensor, samples: SampleList) -> dict[str, Any]:
        """What losses and adapters may ask for by name, of one batch."""
        return dict(
            gt_bboxes=[get_box_tensor(sample.gt_instances.bboxes) for sample in samples],
            gt_labels=[sample.gt_instances.labels for sample in samples],
            image_sizes=[tuple(sample.metainfo.get('img_shape', inputs.shape[-2:])[:2]) for sample in samples],
            batch_input_shape=tuple(inputs.shape[-2:]),
            data_samples=samples,
        )

    def _readings(self, term: Term, context: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """A term's student reading, teacher reading and context, after the student has run."""
        found: dict[str, Any] = {}
        for owner, tap, key in term.taps():
            reading = self._read(term, self._whose(owner, key), tap, key)
            if key == f'{term.key}.teacher' or tap.owner == 'teacher':  # of the student itself, perhaps
                reading = map_tensors(Tensor.detach, reading)
            found.setdefault(key, []).append(reading)
        student, teacher = (_levels(found.pop(f'{term.key}.{side}')) for side in ('student', 'teacher'))
        return student, teacher, {**context, **{key.rpartition('.')[2]: value[0] for key, value in found.items()}}

    def _read(self, term: Term, owner: str, tap: Tap, key: str) -> Any:
        """The reading of one tap; a teacher's second stage runs now, on the student's RoIs."""
        if owner == 'student':
            return self._student_taps.read(tap, key)
        second = self._second.get((term.name, tap.text))
        if second is None:
            return self._teacher_taps[owner].read(tap, key)
        if not any(second.taps.counts().values()):
            features = self._teacher_taps[owner].read(second.features)
            rois = extracted_rois(self._student_taps.read(second.rois, key))
            self.teachers[owner].observe_rois(features, rois, second.stage, second.taps)
        return second.taps.read(tap, key)

    def _weigh(self, losses: dict[str, Any]) -> dict[str, Any]:
        for name, weight in self.task_weights.items():
            if name not in losses:
                raise ConfigError(
                    f'model.task_weights: the student has no loss {name!r}; it has {", ".join(losses)}.'
                    f'{did_you_mean(name, losses)}'
                )
            value = losses[name]
            losses[name] = [v * weight for v in value] if isinstance(value, (list, tuple)) else value * weight
        return losses

    def _clear(self) -> None:
        """Drop all readings, and with them the graph."""
        second = (stage.taps for stage in self._second.values())
        for taps in (self._student_taps, *self._teacher_taps.values(), *second):
            taps.clear()

    # --- the student alone --------------------------------------------------------------------------------------------

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """The student's detections."""
        return self.student.predict(batch_inputs, batch_data_samples, rescale=rescale)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList | None = None) -> Any:
        """The student's raw outputs."""
        return self.student._forward(batch_inputs, batch_data_samples)

    def extract_feat(self, batch_inputs: Tensor) -> Any:
        """The student's feature maps."""
        return self.student.extract_feat(batch_inputs)


def _carries_gradient(reading: Any) -> bool:
    if isinstance(reading, Tensor):
        return reading.requires_grad
    return isinstance(reading, (list, tuple)) and any(map(_carries_gradient, reading))


def _levels(readings: list[Any]) -> Any:
    """The reading of one tap as it is; of several taps, one list of all their levels."""
    if len(readings) == 1:
        return readings[0]
    return [level for reading in readings for level in (reading if isinstance(reading, (list, tuple)) else [reading])]


def _same_numbers(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same_numbers, a, b))
    return type(a) is type(b)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise ConfigError(
            f"model.inherit: found {value!r}, expected a list of module paths such as ['neck', 'bbox_head']."
        )
    return list(value)


def _is_head_output(network: nn.Module, tap: Tap) -> bool:
    """Whether a tap reads what a head predicts, where another layout means another task.

    That is a head itself, or its predicting layer (``bbox_head.retina_cls``), told by its width.
    """
    if tap.kind != 'output':
        return False
    module = tap.module(network)
    if _classes(module) is not None:
        return True
    head = network.get_submodule(tap.path.rpartition('.')[0])
    classes = _classes(head)
    if classes is None or not isinstance(module, (nn.Conv2d, nn.Linear)):
        return False
    width = module.out_channels if isinstance(module, nn.Conv2d) else module.out_features
    priors = getattr(head, 'num_base_priors', 1)
    priors = {1, *(priors if isinstance(priors, (list, tuple)) else [priors])}
    columns = {classes, getattr(head, 'num_classes', classes) + 1, 4, 4 * classes}
    return width in {n * k for n in priors for k in columns}


def _classes(module: nn.Module) -> int | None:
    """The number of class scores of a head; None for any other module."""
    found = getattr(module, 'cls_out_channels', getattr(module, 'num_classes', None))
    return found if isinstance(found, int) else None
