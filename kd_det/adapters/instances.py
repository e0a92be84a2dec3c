"""Instances: what both networks see at the same boxes."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures.bbox import bbox2roi, bbox_overlaps, get_box_tensor
from torch import Tensor, nn

from kd_det.errors import ConfigError, did_you_mean
from kd_det.registry import MODELS
from kd_det.taps import levels_of

from .base import Adapter, Pair

_OUTPUTS = ('rows', 'maps')
#: A background box overlaps no object by this IoU, and no ignored region with this share of itself.
BACKGROUND_OVERLAP = 0.3
#: A detection of the teacher that overlaps an annotated object by this IoU is that object, which is there already.
SAME_OBJECT = 0.5
#: How many background boxes are drawn for each that is wanted.
_DRAWS = 8


@MODELS.register_module()
class Instances(Adapter):
    """Pools the ground-truth boxes of the whole batch out of both pyramids: one row per instance.

    Both networks pool the same boxes by RoIAlign, each out of its own levels by mmdet's rule (level 0 up to twice
    ``finest_scale``, then one level per doubling of the box). Strides are found from the maps of the dry forward. Boxes
    are cut at the image's edge; those below one pixel are left out. Where the loss needs equal widths, a 1×1
    convolution maps the student's to the teacher's.

    Extras for the loss: ``labels`` (n,), the class of each row, the number of classes for background; ``idx`` (n,), its
    instance id, -1 for a box that has none (background, detections), or None if the samples carry no ids at all
    (:class:`~kd_det.hooks.InstanceIdHook` gives them).

    In a batch without boxes, or with fewer than ``min_rows``, the loss gets no rows: every loss on rows then gives a
    zero that hangs on the graph, and parameters get a gradient of zero.

    Args:
        output: ``'rows'`` for means over the pooled map, (n, C), or ``'maps'`` for (n, C, ``roi_size``, ``roi_size``).
        roi_size: Height and width of the pooled map.
        finest_scale: Boxes (square root of the area, in pixels) below twice this are pooled from the first level. None
            means 14 times the smallest stride of each network, mmdet's 56 at stride 4.
        jitter: Each box is shifted by up to this share of its width and height, and its sides are scaled by up to this
            share, at random; 0 for none.
        background: Number of random boxes per image that hardly overlap any object (:data:`BACKGROUND_OVERLAP`); fewer
            where there is no room.
        detections: Score from which on the teacher's own detections are added, with its labels, except where they are
            annotated objects; None for none. The teacher's head runs for it on the teacher's maps.
        min_rows: The fewest rows worth comparing.
        max_rows: Of more rows, so many are drawn at random.

    Raises:
        ConfigError: For options out of range.
    """

    def __init__(
        self,
        output: str = 'rows',
        roi_size: int = 7,
        finest_scale: float | None = None,
        jitter: float = 0.0,
        background: int = 0,
        detections: float | None = None,
        min_rows: int = 1,
        max_rows: int = 256,
    ) -> None:
        super().__init__()
        if output not in _OUTPUTS:
            hint = did_you_mean(str(output), _OUTPUTS)
            raise ConfigError(f"output: found {output!r}, expected 'rows' or 'maps'.{hint}")
        for name, value, wanted, good in (
            ('roi_size', roi_size, '1 or more', roi_size >= 1),
            ('finest_scale', finest_scale, 'pixels above 0, or None', finest_scale is None or finest_scale > 0),
            ('jitter', jitter, 'a share from 0 to below 1', 0 <= jitter < 1),
            ('background', background, 'a number of boxes per image, 0 or more', background >= 0),
            ('detections', detections, 'a score from 0 to 1, or None', detections is None or 0 <= detections <= 1),
            ('max_rows', max_rows, f'at least min_rows={min_rows!r} and 1', max_rows >= max(1, min_rows)),
        ):
            if not good:
                raise ConfigError(f'{name}: found {value!r}, expected {wanted}.')
        self.output, self.roi_size, self.finest_scale = output, roi_size, finest_scale
        self.jitter, self.background, self.detections = jitter, background, detections
        self.min_rows, self.max_rows = min_rows, max_rows
        self.pools = nn.ModuleDict()
        self.align: nn.Module = nn.Identity()
        #: The label of background boxes; -1 where the student's head does not tell its number of classes.
        self.background_label = -1

    @property
    def inputs(self) -> dict[str, str]:
        """The teacher's whole pyramid, if its detections are wanted."""
        return {} if self.detections is None else dict(features='teacher:neck')

    @property
    def runs_teacher(self) -> bool:
        """Only to detect with it."""
        return self.detections is not None

    def bind(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        super().bind(student, teacher, key)
        self.background_label = _number_of_classes(student)
        if self.detections is None:
            return
        if teacher is student:
            raise ConfigError(f'{key}.adapter.detections: found {self.detections!r} without a teacher; expected None.')
        two_stage = isinstance(teacher, TwoStageDetector) and teacher.with_rpn and teacher.with_bbox
        if two_stage:  # Hybrid Task Cascade needs a semantic map besides
            two_stage = 'semantic_feat' not in inspect.signature(teacher.roi_head.predict_bbox).parameters
        if not two_stage and not isinstance(teacher, SingleStageDetector):
            raise ConfigError(
                f'{key}.adapter.detections: {type(teacher).__name__}, the teacher, does not detect from its maps '
                'alone; expected a one-stage detector, or a two-stage one with RPN and box head; or detections=None.'
            )

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        pools, strides, widths = {}, {}, {}
        for side, reading in (('student', student), ('teacher', teacher)):
            levels = levels_of(reading, f'{key}.{side}')
            shapes = ', '.join(str(tuple(level.shape)) for level in levels)
            if any(level.dim() != 4 for level in levels) or len({level.shape[1] for level in levels}) != 1:
                raise ConfigError(
                    f'{key}.{side}: expected maps (images, C, H, W) of one width C to pool instances from, such as '
                    f"'neck', found {shapes}."
                )
            strides[side] = [_stride(context['batch_input_shape'], level.shape[2:]) for level in levels]
            widths[side] = levels[0].shape[1]
            pools[side] = SingleRoIExtractor(
                roi_layer=dict(type='RoIAlign', output_size=self.roi_size, sampling_ratio=0),
                out_channels=widths[side],
                featmap_strides=strides[side],
                finest_scale=self.finest_scale or 14 * min(strides[side]),
            )
        self.pools = nn.ModuleDict(pools)
        found = [' '.join(f'/{stride:g}' for stride in side) for side in strides.values()]
        note = f'boxes from {found[0]}' + (f', teacher {found[1]}' if found[0] != found[1] else '')
        if same_channels and widths['student'] != widths['teacher']:
            self.align = nn.Conv2d(widths['student'], widths['teacher'], 1)
            note += f', 1x1 {widths["student"]}→{widths["teacher"]}'
        self.notes = [note]

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        rois, labels, idx = self._choose(*self.boxes(context))
        ours = self.align(self._pool('student', levels_of(student), rois))
        theirs = self._pool('teacher', levels_of(teacher), rois)
        if self.output == 'rows':
            ours, theirs = ours.mean((2, 3)), theirs.mean((2, 3))
        return [Pair(ours, theirs, dict(labels=labels, idx=idx))]

    @torch.no_grad()
    def boxes(self, context: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
        """All boxes that may be pooled.

        Args:
            context: As in :meth:`forward`.

        Returns:
            RoIs, shape (n, 5): index of the image, x1, y1, x2, y2 in pixels of the network's input; labels, shape (n,);
            ids, shape (n,), or None if no sample has any.
        """
        truth = context['gt_bboxes']
        found = self._detect(context) if self.detections is not None else [None] * len(truth)
        has_ids = any('instance_ids' in sample.gt_instances for sample in context['data_samples'])
        boxes, labels, ids = [], [], []
        for own, classes, size, sample, more in zip(
            truth, context['gt_labels'], context['image_sizes'], context['data_samples'], found
        ):
            parts = [(_jittered(own, self.jitter), classes)]
            if self.background:
                drawn = _draw_background(own, _ignored(sample, own), size, self.background)
                parts.append((drawn, classes.new_full((len(drawn),), self.background_label)))
            if more is not None:
                new = (more.scores >= self.detections) & ~_overlapping(get_box_tensor(more.bboxes), own, SAME_OBJECT)
                parts.append((get_box_tensor(more.bboxes)[new].to(own), more.labels[new].to(classes)))
            image_boxes, image_labels = (torch.cat(values) for values in zip(*parts))
            image_ids = torch.full_like(image_labels, -1)
            if 'instance_ids' in sample.gt_instances:
                image_ids[: len(own)] = sample.gt_instances.instance_ids
            height, width = size
            limits = image_boxes.new_tensor([width, height, width, height])
            image_boxes = torch.minimum(image_boxes.clamp(min=0), limits)
            large = (image_boxes[:, 2:] - image_boxes[:, :2] >= 1).all(1)  # False for NaN
            boxes.append(image_boxes[large])
            labels.append(image_labels[large])
            ids.append(image_ids[large])
        return bbox2roi(boxes), torch.cat(labels), torch.cat(ids) if has_ids else None

    def _choose(self, rois: Tensor, labels: Tensor, idx: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """At most ``max_rows``, drawn at random; none if there are fewer than ``min_rows``."""
        number = len(rois)
        if number > self.max_rows:
            drawn = torch.randperm(number, device=rois.device)[: self.max_rows].sort()[0]
        else:
            drawn = slice(number if number >= self.min_rows else 0)
        return rois[drawn], labels[drawn], None if idx is None else idx[drawn]

    def _pool(self, side: str, levels: list[Tensor], rois: Tensor) -> Tensor:
        pool = self.pools[side]
        if len(levels) != pool.num_inputs:
            raise ConfigError(f'the {side} tap gave {len(levels)} levels; the plan saw {pool.num_inputs}.')
        pooled = pool(levels, rois)
        if not len(rois):
            pooled = pooled + sum(level.sum() for level in levels) * 0
        return pooled

    def _detect(self, context: dict[str, Any]) -> list[Any]:
        """The teacher's detections of each image, in pixels of the network's input."""
        teacher, samples = self.teacher_net.module, context['data_samples']
        head = teacher.rpn_head if isinstance(teacher, TwoStageDetector) else teacher.bbox_head
        dtype = next(head.parameters()).dtype  # the backbone may be in half precision
        features = tuple(level.to(dtype) for level in levels_of(context['features']))
        if isinstance(teacher, TwoStageDetector):
            proposals = teacher.rpn_head.predict(features, samples, rescale=False)
            head, metas = teacher.roi_head, [sample.metainfo for sample in samples]
            return head.predict_bbox(features, metas, proposals, head.test_cfg, rescale=False)
        return teacher.bbox_head.predict(features, samples, rescale=False)


def _stride(image: tuple[int, int], level: tuple[int, int]) -> float:
    """The stride s of a map with ceil(image / s) cells: a power of two if one fits, else the least."""
    lowest = max(size / cells for size, cells in zip(image, level))
    below = min(size / (cells - 1) if cells > 1 else math.inf for size, cells in zip(image, level))
    power = 2 ** math.ceil(math.log2(lowest))
    return power if power < below else lowest


def _number_of_classes(network: nn.Module) -> int:
    for owner in (network, getattr(network, 'roi_head', None)):
        head = getattr(owner, 'bbox_head', None)
        head = head[0] if isinstance(head, nn.ModuleList) else head
        if isinstance(getattr(head, 'num_classes', None), int):
            return head.num_classes
    return -1


def _ignored(sample: Any, like: Tensor) -> Tensor:
    """The ignored regions of an image, shape (n, 4)."""
    ignored = sample.get('ignored_instances')
    if ignored is None or 'bboxes' not in ignored:
        return like.new_zeros(0, 4)
    return get_box_tensor(ignored.bboxes).to(like)


def _jittered(boxes: Tensor, amount: float) -> Tensor:
    """Boxes (n, 4) shifted and scaled at random by up to ``amount`` of their size."""
    if not amount:
        return boxes
    size = boxes[:, 2:] - boxes[:, :2]
    shift, scale = ((2 * torch.rand_like(size) - 1) * amount for _ in range(2))
    centre, half = (boxes[:, 2:] + boxes[:, :2]) / 2 + shift * size, (1 + scale) * size / 2
    return torch.cat((centre - half, centre + half), 1)


def _overlapping(boxes: Tensor, others: Tensor, threshold: float, mode: str = 'iou') -> Tensor:
    """Which of ``boxes`` (n, 4) overlap one of ``others`` (m, 4) by ``threshold`` or more; shape (n,)."""
    return (bbox_overlaps(boxes, others.to(boxes), mode=mode) >= threshold).any(1)


def _draw_background(objects: Tensor, ignored: Tensor, size: tuple[int, int], number: int) -> Tensor:
    """At most ``number`` random boxes beside all objects, with sides from 1/16 to 1/2 of the image's; shape (n, 4)."""
    whole = objects.new_tensor([size[1], size[0]])
    random = torch.rand(_DRAWS * number, 4, device=objects.device, dtype=objects.dtype)
    sides = whole * torch.exp2(-1 - 3 * random[:, :2])
    corner = random[:, 2:] * (whole - sides)
    boxes = torch.cat((corner, corner + sides), 1)
    taken = _overlapping(boxes, objects, BACKGROUND_OVERLAP) | _overlapping(boxes, ignored, BACKGROUND_OVERLAP, 'iof')
    return boxes[~taken][:number]
