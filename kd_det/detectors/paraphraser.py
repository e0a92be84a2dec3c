"""The first stage of factor transfer: the teacher and its paraphrasers, no student."""

from __future__ import annotations

from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS
from kd_det.taps import TapSet, levels_of

from .plan import PROBES, Plan, probe_batch, raise_together, untouched
from .teacher import Teacher
from .term import Term


@MODELS.register_module()
class ParaphraserTrainer(BaseModel):
    """Trains auto-encoders of a frozen teacher's maps, and nothing else.

    Its checkpoints hold the paraphrasers under the names that :class:`~kd_det.losses.FTLoss` looks for with
    ``paraphraser='work_dirs/…/epoch_1.pth'``. Validation and prediction are the teacher's.

    Args:
        teacher: ``dict(config=…, checkpoint=…)``, see :class:`~kd_det.detectors.Teacher`.
        distill: Terms as in :class:`~kd_det.detectors.DistillDetector` whose loss is
            ``dict(type='kd_det.FTLoss', stage='paraphraser')``; ``student`` is not read and may be left out.

    Raises:
        ConfigError: For anything wrong in the config.
    """

    def __init__(self, teacher: dict[str, Any], distill: dict[str, Any]) -> None:
        super().__init__()
        if not isinstance(distill, dict) or not distill:
            raise ConfigError(
                f"model.distill: found {distill!r}, expected such as dict(ft=dict(teacher='neck', "
                "loss=dict(type='kd_det.FTLoss', stage='paraphraser')))."
            )
        terms, errors = {}, []
        for name, cfg in distill.items():
            try:
                terms[name] = _term(name, cfg)
            except ConfigError as error:
                errors.append(error)
        raise_together(errors)
        self.distill = nn.ModuleDict(terms)
        self.teacher = Teacher.from_config(teacher)
        self.data_preprocessor = self.teacher.model.data_preprocessor
        taps = []
        for term in self.terms:
            for tap in term.teacher_taps:
                tap.module(self.teacher.model, f'{term.key}.teacher')
                taps.append(tap)
        self._taps = TapSet(self.teacher.model, taps, 'teacher', guest=True)
        self.plan = self._make_plan()

    @property
    def terms(self) -> list[Term]:
        """The terms, in the order of the config."""
        return list(self.distill.values())

    def _make_plan(self) -> Plan:
        """One dry forward of the teacher, which tells each paraphraser its channels."""
        errors: list[ConfigError] = []
        device = next(self.teacher.model.parameters()).device
        with untouched(self.teacher.model):
            for size, masks in PROBES:
                try:
                    self._taps.watch_versions()
                    self.teacher.probe(*probe_batch(size, device, masks), self._taps, 'teacher')
                    self._taps.copy_overwritten()
                    break
                except ConfigError:
                    raise
                except Exception as error:
                    if (size, masks) == PROBES[-1]:
                        raise ConfigError(
                            f'model.teacher: the dry forward failed with {type(error).__name__}: {error}. Check '
                            'model.teacher.config.'
                        ) from error
            plan = Plan(size)
            for term in self.terms:
                try:
                    maps = self._maps(term)
                    plan.add(term, term.prepare(maps, maps, {}), maps, maps)
                except ConfigError as error:
                    errors.append(error)
        self._taps.clear()
        raise_together(errors)
        return plan

    def _maps(self, term: Term) -> list[Tensor]:
        key = f'{term.key}.teacher'
        return [level for tap in term.teacher_taps for level in levels_of(self._taps.read(tap, key), key)]

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> ParaphraserTrainer:
        super()._apply(fn, *args, **kwargs)
        if 'teacher' in self.__dict__:
            self.teacher.apply_(fn)
        return self

    def init_weights(self) -> None:
        """Load the teacher and log the plan."""
        self._load_teacher()
        print_log(self.plan.table(), 'current')
        self._is_init = True

    def _load_teacher(self) -> None:
        like = next(self.parameters())
        self.teacher.load(like.device, like.dtype)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = 'tensor') -> Any:
        """One ``loss_<term>`` per term in mode ``'loss'``; in any other mode, what the teacher gives.

        Args:
            inputs: Images as the teacher's preprocessor gives them, shape (B, 3, H, W).
            data_samples: Their data samples.
            mode: ``'loss'``, ``'predict'`` or ``'tensor'``.
        """
        self._load_teacher()
        if mode != 'loss':
            return self.teacher.network(inputs, data_samples, mode)
        losses: dict[str, Tensor] = {}
        self.teacher.prepare(inputs, data_samples, self._taps)
        try:
            self.teacher.observe(inputs, data_samples, self._taps)
            for term in self.terms:
                maps = self._maps(term)
                losses.update(term(maps, maps, {}) if term.factor else term.idle())
        finally:
            self._taps.clear()
        return losses


def _term(name: str, cfg: Any) -> Term:
    """A term whose student is the teacher itself.

    Raises:
        ConfigError: If its loss is no paraphraser.
    """
    if isinstance(cfg, dict) and 'teacher' in cfg:
        cfg = {**cfg, 'student': cfg['teacher']}
    term = Term(name, cfg)
    if term.loss_class.__name__ != 'FTLoss' or term.loss_cfg.get('stage') != 'paraphraser':
        raise ConfigError(
            f'{term.key}.loss: found {term.loss_cfg}, expected '
            "dict(type='kd_det.FTLoss', stage='paraphraser'): this model trains nothing else."
        )
    return term
