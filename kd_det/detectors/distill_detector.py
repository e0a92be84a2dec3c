"""The wrapper: a student, a frozen teacher, and the terms between them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.detectors.base import BaseDetector
from mmdet.structures import SampleList
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean
from kd_det.registry import MODELS
from kd_det.taps import Tap, TapSet

from .plan import PROBE_SIZES, Plan, probe_batch, raise_together, untouched
from .teacher import Teacher, probe_network
from .term import Term, is_default_align


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
        teacher: ``dict(config=…, checkpoint=…)``, see :class:`~kd_det.detectors.Teacher`.
        distill: The terms by name, see :class:`~kd_det.detectors.Term`.
        inherit: Parts of the student that start from the teacher's weights, after the student's own ``init_weights``:
            module paths (``['neck', 'bbox_head']``), or a dict of student path → teacher path.
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
        if teacher is None:
            raise ConfigError(
                'model.teacher: missing; expected dict(config=<mmdet:: name, path or dict>, checkpoint=<path or URL>).'
            )
        if not isinstance(distill, dict) or not distill:
            raise ConfigError(
                f'model.distill: found {distill!r}, expected at least one term, '
                "such as dict(cwd=dict(student='neck', teacher='neck', loss=dict(type='kd_det.CWDLoss')))."
            )
        student = ConfigDict(student)
        if data_preprocessor is not None:
            student.setdefault('data_preprocessor', data_preprocessor)
        scope = student.pop('_scope_', 'mmdet')
        with MODELS.switch_scope_and_registry(scope) as registry:
            self.student: nn.Module = registry.build(student)
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
        self.teacher = Teacher.from_config(teacher)
        self.teacher.see_as(self.student)
        self._make_taps()
        self.plan = self._make_plan()
        self._register_load_state_dict_pre_hook(self._accept_plain_student)

    # --- set-up -------------------------------------------------------------------------------------------------------

    @property
    def terms(self) -> list[Term]:
        """The terms, in the order of the config."""
        return list(self.distill.values())

    def _make_taps(self) -> None:
        """Resolve all taps; the second stage of a teacher is observed apart, on the student's RoIs."""
        errors: list[ConfigError] = []
        student_taps: list[Tap] = []
        dense: list[Tap] = []
        second: dict[str, tuple[Tap, int | None]] = {}
        for term in self.terms:
            try:
                for tap in term.student_taps:
                    tap.module(self.student, f'{term.key}.student')
                student_taps += term.student_taps
                tap = term.teacher_tap
                tap.module(self.teacher.model, f'{term.key}.teacher')
                if tap.path.split('.')[0] == 'roi_head':
                    second[term.name] = self._roi_source(term)
                    student_taps.append(second[term.name][0])
                else:
                    dense.append(tap)
                if is_default_align(term.adapter):
                    term.adapter.layout_is_fixed = _is_head_output(self.student, term.student_tap)
                heads = (term.student_tap.module(self.student), tap.module(self.teacher.model))
                term.adapter.check_modules(*heads, term.key)
            except ConfigError as error:
                errors.append(error)
        for path, source in self.inherit.items():
            for network, name, side in ((self.student, path, 'student'), (self.teacher.model, source, 'teacher')):
                try:
                    Tap(name, name, 'output').module(network, f'model.inherit, {side}')
                except ConfigError as error:
                    errors.append(error)
        raise_together(errors)
        self._features = Tap.parse('neck' if self.teacher.model.with_neck else 'backbone')
        #: The second stage runs once for all terms that read it on the same RoIs.
        self._roi_terms: dict[str, tuple[Tap, int | None, TapSet]] = {}
        for source in dict.fromkeys(second.values()):
            names = [name for name, other in second.items() if other == source]
            taps = TapSet(self.teacher.model, [self.distill[name].teacher_tap for name in names], 'teacher', guest=True)
            self._roi_terms.update((name, (*source, taps)) for name in names)
        if self._roi_terms:
            dense.append(self._features)
        self._student_taps = TapSet(self.student, student_taps, 'student')
        self._teacher_taps = TapSet(self.teacher.model, dense, 'teacher', guest=True)

    def _roi_source(self, term: Term) -> tuple[Tap, int | None]:
        """Where the student's sampled RoIs are read for a term, and the stage of the teacher's cascade."""
        if not hasattr(self.student, 'roi_head'):
            raise ConfigError(
                f"{term.key}.teacher: {term.teacher_tap.text!r} is in the second stage, which scores the student's "
                f'sampled RoIs, but the student ({type(self.student).__name__}) has none; expected a two-stage '
                "student, or a tap such as 'neck'."
            )
        stages = []
        for network, tap in ((self.student, term.student_tap), (self.teacher.model, term.teacher_tap)):
            parts = tap.path.split('.')
            is_cascade = isinstance(network.roi_head.bbox_head, nn.ModuleList)
            number = parts[2] if len(parts) > 2 and parts[2].isdigit() else None
            if is_cascade and number is None:
                raise ConfigError(
                    f'{term.key}: {tap.text!r}: {type(network).__name__} has {len(network.roi_head.bbox_head)} stages; '
                    f"expected one of them, such as 'roi_head.bbox_head.0[0]'."
                )
            stages.append(int(number) if is_cascade else None)
        middle = '' if stages[0] is None else f'.{stages[0]}'
        return Tap.parse(f'roi_head.bbox_roi_extractor{middle}@in'), stages[1]

    def _make_plan(self) -> Plan:
        """One dry forward of both networks; see :mod:`kd_det.detectors.plan`."""
        device = next(self.student.parameters()).device
        with untouched(self.student, self.teacher.model):
            for size in PROBE_SIZES:
                inputs, samples = probe_batch(size, device)
                try:
                    self._student_taps.watch_versions()
                    probe_network(self.student, inputs, samples, self._student_taps, 'student')
                    self._student_taps.copy_overwritten()
                    self._teacher_taps.watch_versions()
                    self.teacher.probe(inputs, samples, self._teacher_taps, 'teacher')
                    self._teacher_taps.copy_overwritten()
                    break
                except ConfigError:
                    raise
                except Exception as error:
                    if size == PROBE_SIZES[-1]:
                        raise ConfigError(
                            'model: the dry forward of student and teacher failed with '
                            f'{type(error).__name__}: {error}. Check model.student and model.teacher.config.'
                        ) from error
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
        if self.teacher.converts_images:
            plan.notes.append('The teacher sees the images with its own mean, std and channel order.')
        return plan

    def _mode_errors(self, inputs: Tensor, samples: SampleList) -> list[ConfigError]:
        """Errors for taps at heads that compute other numbers while training, as the teacher never does."""
        errors = []
        for term in self.terms:
            tap = term.student_tap
            if tap.path.split('.')[0] == 'roi_head' or not _is_head_output(self.student, tap):
                continue  # a second stage draws its rows at random
            module = tap.module(self.student)
            evaluated = self._student_taps.read(tap, f'{term.key}.student')
            module.training = True  # the head itself; its norm layers and dropout stay in eval mode
            probe_network(self.student, inputs, samples, self._student_taps, 'student')
            trained = self._student_taps.read(tap, f'{term.key}.student')
            module.training = False
            if not _same_numbers(evaluated, trained):
                errors.append(
                    ConfigError(
                        f'{term.key}.student: {tap.text!r}: {type(module).__name__} gives other numbers in training '
                        'than in evaluation, where the teacher always is; expected a tap such as '
                        "'bbox_head[0]', or a layer inside the head."
                    )
                )
            probe_network(self.student, inputs, samples, self._student_taps, 'student')
        return errors

    def init_weights(self) -> None:
        """Initialise the student as its config says, load the teacher, start inherited parts from it, log the plan."""
        self._load_teacher()  # first, so that a wrong checkpoint stops the run before anything is downloaded
        self.student.init_weights()
        for path, source in self.inherit.items():
            report = self._inherit(path, source)
            print_log(report, 'current', logging.WARNING if 'did not fit' in report else logging.INFO)
        print_log(self.plan.table(), 'current')
        self._is_init = True

    def _load_teacher(self) -> None:
        like = next(self.student.parameters())
        self.teacher.load(like.device, like.dtype)

    @torch.no_grad()
    def _inherit(self, path: str, source: str) -> str:
        """Copy all tensors of equal name and shape from the teacher's part to the student's; returns the report.

        Raises:
            ConfigError: If nothing fits.
        """
        ours = self.student.get_submodule(path).state_dict()
        theirs = self.teacher.model.get_submodule(source).state_dict()
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
        if 'teacher' in self.__dict__:
            self.teacher.apply_(fn)
        return self

    # --- one step -----------------------------------------------------------------------------------------------------

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Any]:
        """The student's task losses and one ``loss_<term>`` per term.

        Args:
            batch_inputs: Normalised images, shape (B, 3, H, W).
            batch_data_samples: Their data samples.

        Raises:
            ConfigError: If a term's name hides a task loss, or ``task_weights`` names no task loss.
        """
        self._load_teacher()
        try:
            context = self._context(batch_inputs, batch_data_samples)
            if any(term.factor for term in self.terms):
                self.teacher.observe(batch_inputs, batch_data_samples, self._teacher_taps)
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
        )

    def _readings(self, term: Term, context: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """A term's student reading, teacher reading and context, after the student has run."""
        key = term.key
        student = self._student_taps.read(term.student_tap, f'{key}.student')
        inputs = {arg: self._student_taps.read(tap, f'{key}.inputs.{arg}') for arg, tap in term.input_taps.items()}
        if term.name in self._roi_terms:
            rois, stage, taps = self._roi_terms[term.name]
            if not any(taps.counts().values()):
                features = self._teacher_taps.read(self._features)
                extracted = self._student_taps.read(rois, f'{key}.teacher')
                if isinstance(extracted, list):  # run again by a mask head that shares the extractor
                    extracted = extracted[0]
                self.teacher.observe_rois(features, extracted[1], stage, taps)
            teacher = taps.read(term.teacher_tap, f'{key}.teacher')
        else:
            teacher = self._teacher_taps.read(term.teacher_tap, f'{key}.teacher')
        return student, teacher, {**context, **inputs}

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
        for taps in (self._student_taps, self._teacher_taps, *(taps for _, _, taps in self._roi_terms.values())):
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
