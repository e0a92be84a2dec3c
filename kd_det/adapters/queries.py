"""The queries of DETR-type heads as rows, each beside the teacher's query that means the same object."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import DETRHead
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean
from kd_det.registry import MODELS
from kd_det.taps.tap import describe

from .base import Adapter, Pair

_NAMES = ('scores', 'boxes')
_MATCHES, _LAYERS, _FORMATS = ('hungarian', 'index'), ('last', 'all'), ('cxcywh', 'xyxy')


@MODELS.register_module()
class QueryRows(Adapter):
    """Decoder queries of a DETR-type head (DETR, Conditional, DAB, Deformable DETR, DINO) as rows.

    The term's taps read class scores (``bbox_head[0]``), all layers (L, B, Q, K), or boxes (``bbox_head[1]``),
    (L, B, Q, 4), relative to the image. Of each image the teacher's ``topk`` most confident queries are taken, and for
    each of them one of the student's:

    - ``match='hungarian'``: one to one, by the student's own assigner (its costs of class, box and IoU), with the
      teacher's classes and boxes in the place of the ground truth. The numbers of queries may differ.
    - ``match='index'``: the query of the same number. Means something where the student starts from the teacher's
      queries (``inherit=['query_embedding', …]``) and both learn them; not where the encoder proposes them.

    Denoising queries (DINO), which the student alone has, are left out. The pair has rows (N, K), or boxes (N, 4), and
    the extras ``labels`` (the teacher's class), ``label_weights`` and ``weight`` (its confidence; N, or (N, 4) for
    boxes, as mmdet's losses ask), ``bbox_weights`` (N, 4) and ``avg_factor``, their sum as a mean over processes, at
    least 1.

    Both heads need the same classes and the same form of scores (sigmoid, or soft-max with background last).

    Args:
        match: ``'hungarian'`` or ``'index'``.
        topk: How many queries of the teacher teach in each image; None: all.
        layers: ``'last'`` compares the last decoder layers, ``'all'`` layer by layer, one pair for each.
        box_format: What boxes are given as: ``'cxcywh'``, or ``'xyxy'`` for losses on overlaps.
    """

    def __init__(
        self, match: str = 'hungarian', topk: int | None = 100, layers: str = 'last', box_format: str = 'cxcywh'
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ('match', match, _MATCHES), ('layers', layers, _LAYERS), ('box_format', box_format, _FORMATS),
        ):  # fmt: skip
            if value not in choices:
                raise ConfigError(
                    f'adapter.{name}: found {value!r}, expected one of {", ".join(map(repr, choices))}.'
                    f'{did_you_mean(str(value), choices)}'
                )
        if topk is not None and topk < 1:
            raise ConfigError(f'adapter.topk: found {topk!r}, expected 1 or more, or None.')
        self.match, self.topk, self.layers, self.box_format = match, topk, layers, box_format
        self.num_queries, self.use_sigmoid = 0, True

    @property
    def inputs(self) -> dict[str, str]:
        heads = dict(student=self.student_tap.path, teacher=f'teacher:{self.teacher_taps[0].path}')
        return {f'{name}_{side}': f'{head}[{i}]' for side, head in heads.items() for i, name in enumerate(_NAMES)}

    def bind(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        super().bind(student, teacher, key)
        for side, network in (('student', student), ('teacher', teacher)):
            if not hasattr(network, 'num_queries'):
                raise ConfigError(f'{key}.{side}: {type(network).__name__} has no queries; expected a DETR.')
            if self.match == 'index' and getattr(network, 'as_two_stage', False):
                raise ConfigError(
                    f"{key}.adapter.match: found 'index', but the queries of {side} {type(network).__name__} are the "
                    "encoder's best proposals (as_two_stage=True), which come in any order; expected 'hungarian'."
                )
        if hasattr(student, 'dense_topk_ratio'):
            raise ConfigError(
                f'{key}.student: {type(student).__name__} trains with further dense queries among its own; expected a '
                'student such as DINO or DeformableDETR (as a teacher it fits).'
            )
        if self.match == 'index' and student.num_queries != teacher.num_queries:
            raise ConfigError(
                f'{key}: the student has {student.num_queries} queries, the teacher {teacher.num_queries}; expected as '
                "many, or adapter.match='hungarian'."
            )
        self.num_queries = student.num_queries

    def check_modules(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        for side, head in (('student', student), ('teacher', teacher)):
            if not isinstance(head, DETRHead):
                raise ConfigError(
                    f"{key}.{side}: found a {type(head).__name__}, expected 'bbox_head[0]' (class scores) or "
                    "'bbox_head[1]' (boxes) of a DETR-type head."
                )
        forms = [(head.cls_out_channels, head.loss_cls.use_sigmoid) for head in (student, teacher)]
        if forms[0] != forms[1]:
            ours, theirs = (f'{k} columns of {"sigmoid" if sigmoid else "soft-max"} scores' for k, sigmoid in forms)
            raise ConfigError(
                f'{key}: the student has {ours}, the teacher {theirs}; expected the same. Train the teacher on the '
                "same classes with the same form, or distil on 'encoder' or 'neck'."
            )
        if self.match == 'hungarian' and not hasattr(student, 'assigner'):
            raise ConfigError(f"{key}.adapter.match: {type(student).__name__} has no assigner; expected match='index'.")
        self.use_sigmoid = student.loss_cls.use_sigmoid

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        self.key = key
        for side, reading in (('student', student), ('teacher', teacher)):
            if not isinstance(reading, Tensor) or reading.dim() != 4:
                raise ConfigError(
                    f'{key}.{side}: found {describe(reading)}, expected (layers, images, queries, columns), such as '
                    "'bbox_head[0]' or 'bbox_head[1]'."
                )
        if student.shape[-1] != teacher.shape[-1]:
            raise ConfigError(
                f'{key}: the taps give {student.shape[-1]} and {teacher.shape[-1]} columns; expected class scores of '
                "both ('bbox_head[0]'), or boxes of both ('bbox_head[1]')."
            )
        if self.layers == 'all' and len(student) != len(teacher):
            raise ConfigError(
                f"{key}.adapter.layers: found 'all', but the student has {len(student)} decoder layers, the teacher "
                f"{len(teacher)}; expected 'last'."
            )
        for side, reading, guest in (('student', student, self.student_net), ('teacher', teacher, self.teacher_net)):
            layers = getattr(getattr(guest.module, 'decoder', None), 'num_layers', len(reading))
            if self.layers == 'all' and len(reading) != layers:
                raise ConfigError(
                    f"{key}.adapter.layers: found 'all', but in evaluation {type(guest.module).__name__} (the {side}) "
                    f"scores {len(reading)} of its {layers} decoder layers; expected 'last'."
                )
        self.notes = [f'{self.match} match of {self.topk or "all"} queries']
        self(student, teacher, context)

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        own = [x[:, :, -self.num_queries :] for x in (student, context['scores_student'], context['boxes_student'])]
        others = [teacher, context['scores_teacher'], context['boxes_teacher']]
        chosen = range(len(student)) if self.layers == 'all' else [-1]
        return [
            self._pair([x[layer] for x in own], [x[layer] for x in others], context['image_sizes']) for layer in chosen
        ]

    def _pair(self, own: list[Tensor], others: list[Tensor], sizes: list[tuple[int, int]]) -> Pair:
        """One decoder layer: reading, scores and boxes of both sides, (B, Q, columns) each."""
        (student, scores_s, boxes_s), (teacher, scores_t, boxes_t) = own, others
        confidence, labels = self._classes(scores_t).max(-1)
        theirs = confidence.topk(min(self.topk or confidence.shape[1], confidence.shape[1]), dim=1).indices
        if self.match == 'hungarian':
            matched = [
                self._hungarian(scores_s[i], boxes_s[i], labels[i, theirs[i]], boxes_t[i, theirs[i]], size)
                for i, size in enumerate(sizes)
            ]
            ours, theirs = [o for o, _ in matched], [t[picked] for t, (_, picked) in zip(theirs, matched)]
        else:
            ours = theirs
        images = torch.cat([torch.full_like(o, i) for i, o in enumerate(ours)])
        ours, theirs = torch.cat(list(ours)), torch.cat(list(theirs))
        weights = confidence[images, theirs]
        student, teacher = student[images, ours], teacher[images, theirs]
        if self.reads_boxes and self.box_format == 'xyxy':
            student, teacher = bbox_cxcywh_to_xyxy(student), bbox_cxcywh_to_xyxy(teacher)
        per_side = weights[:, None].expand(-1, 4)
        extras = dict(
            labels=labels[images, theirs], label_weights=weights, weight=per_side if self.reads_boxes else weights,
            bbox_weights=per_side, avg_factor=reduce_mean(weights.sum()).clamp(min=1),
        )  # fmt: skip
        return Pair(student, teacher, extras)

    def _classes(self, scores: Tensor) -> Tensor:
        """Probabilities of the classes, without background."""
        return scores.sigmoid() if self.use_sigmoid else scores.softmax(-1)[..., :-1]

    def _hungarian(
        self, scores: Tensor, boxes: Tensor, labels: Tensor, targets: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """The student's queries of one image that the teacher's fall to, and which of the teacher's each got."""
        height, width = size
        scale = boxes.new_tensor([width, height, width, height])
        result = self.student_net.module.get_submodule(self.student_tap.path).assigner.assign(
            InstanceData(scores=scores.detach(), bboxes=bbox_cxcywh_to_xyxy(boxes.detach()) * scale),
            InstanceData(labels=labels, bboxes=bbox_cxcywh_to_xyxy(targets) * scale),
            img_meta=dict(img_shape=size),
        )
        ours = (result.gt_inds > 0).nonzero()[:, 0]
        return ours, result.gt_inds[ours] - 1
