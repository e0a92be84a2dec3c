"""The student's features through the rest of the teacher's head."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmdet.models.task_modules.coders import DistancePointBBoxCoder
from mmdet.structures.bbox import get_box_tensor
from mmengine.dist import all_reduce
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.losses._functional import upcast
from kd_det.registry import MODELS
from kd_det.taps import levels_of
from kd_det.taps.tap import describe

from .base import Adapter, Pair
from .dense import assignment_reader

_TOWERS = ('cls', 'reg')


@MODELS.register_module()
class CrossHead(Adapter):
    """Features from inside the student's dense head, scored by the rest of the teacher's head (CrossKD).

    What the ``idx``-th convolutions of the student's two towers (``cls_convs``, ``reg_convs``) give, before the
    activation, gets per channel the mean and the standard deviation of the teacher's features at the same place, then
    goes through that activation, the remaining convolutions and the predicting layers of the teacher's head. Its
    weights are frozen and it is in eval mode; the gradient goes through it to the student's features, and through
    their statistics.

    The rest of the head is the head's own ``forward`` with its first convolutions replaced while it runs, so that no
    head needs code of its own. Whether a head is made of two such towers is tested in the dry forward: the teacher's
    own features have to give the teacher's own predictions. Those of RetinaNet, GFL, ATSS and FCOS do.

    The term's taps are what goes into the student's head, and the teacher's head: ``student='bbox_head@in[0]'``,
    ``teacher='bbox_head'``. All else is tapped by itself. There is one pair per level, of dicts of rows, in the order
    of mmdet's targets:

    - ``cls``: class logits, (N, K);
    - ``boxes``: decoded boxes (N, 4), x1 y1 x2 y2 in pixels of the network's input;
    - ``dist``, where the head predicts distributions over the distance to each side (GFL): logits (4 N, n + 1);
    - ``centerness``, where the head has it: logits (N,).

    Extras: ``labels`` (N,), the student's own, K where there is no object; ``label_weights`` (N,), the student's own;
    ``scores`` (N,), the teacher's highest class score, 0 where the label weight is; ``avg_factor``, what the student's
    head divides its own loss by: the number of positives, or for FCOS the sum of their centerness targets, as the
    authors do; ``score_sum``, the sum of ``scores`` over all levels. Both are means over all processes.

    Where the towers differ in width, a 1×1 convolution maps the student's features to the teacher's width first.

    Reference: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024,
    arXiv 2306.11369.

    Args:
        idx: After how many convolutions of the towers the features cross over; 0: the maps that go into the head.
        eps: Added to the student's standard deviation.

    Raises:
        ConfigError: If ``idx`` is no such number.
    """

    def __init__(self, idx: int = 3, eps: float = 1e-6) -> None:
        super().__init__()
        if not isinstance(idx, int) or isinstance(idx, bool) or idx < 0:
            raise ConfigError(f'adapter.idx: found {idx!r}, expected a number of convolutions, 0 or more.')
        self.idx, self.eps = idx, eps
        self.align = nn.ModuleDict()

    @property
    def paths(self) -> tuple[str, str]:
        """The paths of the student's and the teacher's head, such as ``'bbox_head'``."""
        return self.student_tap.path, self.teacher_taps[0].path

    @property
    def places(self) -> tuple[str, ...]:
        """Where features cross over: in each tower, or once before both."""
        return _TOWERS if self.idx else ('maps',)

    @property
    def inputs(self) -> dict[str, str]:
        """The features of both networks, and the student's targets."""
        taps = dict(targets=f'{self.paths[0]}.get_targets()')
        for place in self.places:
            inside = f'.{place}_convs.{self.idx - 1}@pre' if self.idx else '@in[0]'
            taps[f'{place}_student'] = f'{self.paths[0]}{inside}'
            taps[f'{place}_teacher'] = f'teacher:{self.paths[1]}{inside}'
        return taps

    def bind(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        """Get to know the two heads.

        Raises:
            ConfigError: If they predict other classes, or the student's assignment cannot be read.
        """
        super().bind(student, teacher, key)
        if teacher is student:
            raise ConfigError(f"{key}.teacher: the student's own head cannot be its teacher; expected another network.")
        ours, theirs = self._heads()
        for side, head in (('student', ours), ('teacher', theirs)):
            if not getattr(head, 'use_sigmoid_cls', False) or not hasattr(head, 'prior_generator'):
                raise ConfigError(
                    f'{key}.{side}: {type(head).__name__} is no dense head with sigmoid scores; expected '
                    "student='bbox_head@in[0]' and teacher='bbox_head' of detectors such as RetinaNet, GFL, ATSS, FCOS."
                )
            for tower in ('cls_convs', 'reg_convs'):
                length = len(getattr(head, tower, ()))
                if length < self.idx:
                    raise ConfigError(
                        f'{key}.adapter.idx: found {self.idx}, but {tower} of the {side} ({type(head).__name__}) has '
                        f'{length} convolutions; expected at most as many (0 crosses over at the neck).'
                    )
        if ours.cls_out_channels != theirs.cls_out_channels:
            raise ConfigError(
                f'{key}: the student has {ours.cls_out_channels} classes, the teacher {theirs.cls_out_channels}; '
                'expected as many. Train the teacher on the same classes, or distil on the neck.'
            )
        if assignment_reader(ours) is None:
            raise ConfigError(
                f'{key}.student: the targets of {type(ours).__name__} cannot be read; expected a head such as that of '
                'RetinaNet, GFL, ATSS or FCOS.'
            )

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        self.key = key
        notes = [f'rest of the head after {self.idx} convolutions' if self.idx else 'whole head']
        for place in self.places:
            ours, theirs = self._features(context, place)
            for level, (s, t) in enumerate(zip(ours, theirs)):
                if s.shape[2:] != t.shape[2:]:
                    raise ConfigError(
                        f'{key}: level {level} measures {tuple(s.shape[2:])} in the student and {tuple(t.shape[2:])} '
                        'in the teacher; expected the same strides.'
                    )
            widths = (ours[0].shape[1], theirs[0].shape[1])
            self.align[place] = nn.Identity()
            if widths[0] != widths[1]:
                self.align[place] = nn.Conv2d(*widths, 1)
                notes.append(f'{place} 1x1 {widths[0]}→{widths[1]}')
        self.notes = [', '.join(notes)]
        self._check_priors([tuple(maps.shape[-2:]) for maps in self._outputs(teacher)[0]])
        self._check_head(teacher, {place: self._features(context, place)[1] for place in self.places})

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        crossing = {}
        for place in self.places:
            ours, theirs = self._features(context, place)
            crossing[place] = [match_statistics(self.align[place](s), t, self.eps) for s, t in zip(ours, theirs)]
        rows = self._rows(upcast(self._rest(crossing)))
        targets = self._rows(self._outputs(teacher))
        extras, totals = self._assignment(context['targets'], targets)
        return [Pair(s, t, {**extra, **totals}) for s, t, extra in zip(rows, targets, extras)]

    # --- the two heads ------------------------------------------------------------------------------------------------

    def _heads(self) -> tuple[nn.Module, nn.Module]:
        networks = (self.student_net.module, self.teacher_net.module)
        return tuple(network.get_submodule(path) for network, path in zip(networks, self.paths))

    def _features(self, context: dict[str, Any], place: str) -> tuple[list[Tensor], list[Tensor]]:
        ours, theirs = (levels_of(context[f'{place}_{side}'], self.key) for side in ('student', 'teacher'))
        if len(ours) != len(theirs):
            raise ConfigError(f'{self.key}: the heads have {len(ours)} and {len(theirs)} levels; expected as many.')
        return ours, theirs

    def _outputs(self, reading: Any) -> tuple[list[Tensor], ...]:
        """The outputs of a head: class scores, boxes and perhaps more, each a list of levels."""
        if not isinstance(reading, (list, tuple)) or len(reading) < 2 or isinstance(reading[0], Tensor):
            raise ConfigError(f"{self.key}.teacher: found {describe(reading)}; expected the whole head, 'bbox_head'.")
        return tuple(reading)

    def _rest(self, crossing: dict[str, list[Tensor]]) -> tuple[list[Tensor], ...]:
        """The outputs of the teacher's head for features that enter where they cross over."""
        head = self._heads()[1]
        dtype = next(head.parameters()).dtype
        crossing = {place: [maps.to(dtype) for maps in levels] for place, levels in crossing.items()}
        replaced: dict[nn.Module, Callable] = {}
        for place in self.places if self.idx else ():
            convs = head.get_submodule(f'{place}_convs')[: self.idx]
            replaced.update((conv, _identity) for conv in convs[:-1])
            replaced[convs[-1]] = _Feed(crossing[place], _activation(convs[-1]))
        with replaced_forward(replaced):
            return self._outputs(head(tuple(crossing[self.places[0]])))

    def _check_priors(self, sizes: list[tuple[int, int]]) -> None:
        """Refuse a student whose anchors or points are not the teacher's."""
        ours, theirs = (head.prior_generator.grid_priors(sizes, device='cpu') for head in self._heads())
        if len(ours) != len(theirs) or any(
            s.shape != t.shape or not torch.allclose(s, t) for s, t in zip(ours, theirs)
        ):
            raise ConfigError(
                f'{self.key}: the heads have other anchors or points ({[len(p) for p in ours]} in the student, '
                f'{[len(p) for p in theirs]} in the teacher, by level); expected the same scales, ratios and strides.'
            )

    def _check_head(self, teacher: Any, features: dict[str, list[Tensor]]) -> None:
        """Refuse a head that is not made of two towers and predicting layers on them."""
        expected, name = self._outputs(teacher), type(self._heads()[1]).__name__
        try:
            found = upcast(self._rest(features))
            same = len(found) == len(expected) and all(
                len(f) == len(e) and all(torch.allclose(a, b.to(a), rtol=1e-3, atol=1e-4) for a, b in zip(f, e))
                for f, e in zip(found, expected)
            )
        except Exception as error:  # whatever a head of another make may raise
            raise ConfigError(
                f'{self.key}.teacher: {name} does not run from the middle of its towers: {error}'
            ) from error
        if not same:
            raise ConfigError(
                f"{self.key}.teacher: the teacher's own features do not give its own predictions through the rest of "
                f'{name}; expected a head of two towers, cls_convs and reg_convs, and predicting layers on them alone.'
            )

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _rows(self, outputs: tuple[list[Tensor], ...]) -> list[dict[str, Tensor]]:
        """The outputs of the teacher's head, level by level, as rows."""
        head = self._heads()[1]
        scores, regressions = outputs[:2]
        priors = head.prior_generator.grid_priors(
            [tuple(maps.shape[-2:]) for maps in scores], dtype=scores[0].dtype, device=scores[0].device
        )
        levels = []
        for level, (cls, reg) in enumerate(zip(scores, regressions)):
            anchors = cls.shape[1] // head.cls_out_channels
            row = dict(cls=_flatten(cls, head.cls_out_channels))
            offsets = _flatten(reg, reg.shape[1] // anchors)
            if hasattr(head, 'integral'):
                row['dist'] = offsets.reshape(4 * len(offsets), -1)
                offsets = head.integral(offsets) * head.prior_generator.strides[level][0]
            row['boxes'] = _decode(head.bbox_coder, priors[level].repeat(len(cls), 1), offsets)
            if len(outputs) > 2 and hasattr(head, 'loss_centerness'):
                row['centerness'] = _flatten(outputs[2][level], 1)[:, 0]
            levels.append(row)
        return levels

    def _assignment(
        self, targets: Any, rows: list[dict[str, Tensor]]
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """The extras of each level, and those that are the same for all."""
        head = self._heads()[0]
        labels, weights = assignment_reader(head)(targets)
        found, expected = [level.numel() for level in labels], [len(row['cls']) for row in rows]
        if found != expected:
            raise ConfigError(f"{self.key}: the student's targets are {found} rows by level; expected {expected}.")
        extras = []
        for level, row in enumerate(rows):
            scores = row['cls'].amax(1).sigmoid()
            weight = torch.ones_like(scores) if weights is None else weights[level].flatten().to(scores)
            extras.append(dict(labels=labels[level].flatten(), label_weights=weight, scores=scores * (weight > 0)))
        totals = torch.stack(
            [
                _normaliser(head, targets, [extra['labels'] for extra in extras]).to(extras[0]['scores']),
                torch.stack([extra['scores'].sum() for extra in extras]).sum(),
            ]
        )
        all_reduce(totals, op='mean')
        return extras, dict(avg_factor=totals[0].clamp(min=1), score_sum=totals[1].clamp(min=1))


def match_statistics(student: Tensor, teacher: Tensor, eps: float = 1e-6) -> Tensor:
    """The student's maps with the teacher's mean and standard deviation per channel, over all images and positions.

    Args:
        student: Shape (B, C, H, W).
        teacher: The same shape.
        eps: Added to the student's standard deviation.
    """
    axes = (0, 2, 3)
    correction = min(1, student[:, 0].numel() - 1)  # a single value has no deviation
    s_mean, t_mean = (maps.mean(axes, keepdim=True) for maps in (student, teacher))
    s_std, t_std = (maps.std(axes, correction=correction, keepdim=True) for maps in (student, teacher))
    return (student - s_mean) / (s_std + eps) * t_std + t_mean


@contextlib.contextmanager
def replaced_forward(forwards: dict[nn.Module, Callable]) -> Iterator[None]:
    """Let single modules compute something else for a while; they are as before afterwards, whatever happens.

    Args:
        forwards: Module → what it does instead of its ``forward``.
    """
    before = {module: module.__dict__.get('forward') for module in forwards}
    try:
        for module, forward in forwards.items():
            module.__dict__['forward'] = forward
        yield
    finally:
        for module, forward in before.items():
            module.__dict__.pop('forward')
            if forward is not None:
                module.__dict__['forward'] = forward


class _Feed:
    """A ``forward`` that hands out features level by level, in the order in which the head runs, activated."""

    def __init__(self, levels: list[Tensor], activation: nn.Module) -> None:
        self.levels, self.activation = iter(levels), activation

    def __call__(self, ignored: Tensor) -> Tensor:
        return self.activation(next(self.levels))


def _identity(maps: Tensor) -> Tensor:
    return maps


def _activation(conv: nn.Module) -> nn.Module:
    """What a ``@pre`` tap of the module reads the input of."""
    from kd_det.taps.recorders import activations_in  # imports mmrazor, which takes a while

    return activations_in(conv)[-1]


def _flatten(maps: Tensor, columns: int) -> Tensor:
    """(B, A · columns, H, W) to (B · H · W · A, columns)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, columns)


def _decode(coder: Any, priors: Tensor, offsets: Tensor) -> Tensor:
    """Boxes (N, 4) of anchors (N, 4) or points (N, 2); distances count from the middle of an anchor."""
    if isinstance(coder, DistancePointBBoxCoder) and priors.shape[1] == 4:
        priors = (priors[:, :2] + priors[:, 2:]) / 2
    return get_box_tensor(coder.decode(priors, offsets))


def _normaliser(head: nn.Module, targets: Any, labels: list[Tensor]) -> Tensor:
    """What the student's head divides its own loss by, before the mean over processes."""
    for target in targets:
        if isinstance(target, (int, float)):
            return torch.tensor(float(target))
    positive = [(level >= 0) & (level < head.num_classes) for level in labels]
    if len(targets) == 2 and hasattr(head, 'centerness_target'):  # FCOS: labels and box targets
        return head.centerness_target(torch.cat([boxes[p] for boxes, p in zip(targets[1], positive)])).sum()
    return torch.stack([p.sum() for p in positive]).sum()
