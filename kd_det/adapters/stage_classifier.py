"""A classifier of the student's own on an intermediate stage, beside the teacher's verdict on the same regions."""

from __future__ import annotations

from typing import Any

import torch
from mmcv.ops import roi_align
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.losses.ofa import OFAProjector
from kd_det.registry import MODELS
from kd_det.taps import describe

from .base import Adapter, Pair
from .rows import extracted_rois

#: Fewer regions give no batch statistics worth the name, and one region of one cell none at all.
_FEWEST = 2


@MODELS.register_module()
class StageClassifier(Adapter):
    """Classifies the student's foreground RoIs from one stage of its backbone, for :class:`~kd_det.losses.OFALoss`.

    The term's student tap reads one map of the backbone (``backbone[0]``, ``backbone.layer1``), its teacher tap the
    class scores of the teacher's second stage (``roi_head.bbox_head[0]``), which are those of the student's sampled
    RoIs. The RoIs and their labels are read by themselves. Each RoI with an object in it is pooled out of the map
    (RoIAlign) and classified by an :class:`~kd_det.losses.ofa.OFAProjector` into the teacher's columns, background
    included; write one term for each stage.

    The pair has rows (N, K + 1) and the extra ``labels`` (N,). With fewer than two such RoIs there are no rows, and
    any mean over them is a zero that hangs on the graph.

    Args:
        stages_behind: How many stages follow the tapped one, each a block of stride 2: 3 for the first of four.
        roi_size: Height and width of the pooled map in cells.
        out_channels: Width before the classifier's last layer; None: that of the tapped map, doubled per block.
        cascade: The student's second stage is a cascade: take its first stage's RoIs and labels.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self, stages_behind: int = 0, roi_size: int = 7, out_channels: int | None = None, cascade: bool = False
    ) -> None:
        super().__init__()
        for name, value, least in (('stages_behind', stages_behind, 0), ('roi_size', roi_size, 1)):
            if value < least:
                raise ConfigError(f'adapter.{name}: found {value!r}, expected {least} or more.')
        self.stages_behind, self.roi_size, self.out_channels = stages_behind, roi_size, out_channels
        self.stage = '.0' if cascade else ''
        self.projector: nn.Module = nn.Identity()

    @property
    def inputs(self) -> dict[str, str]:
        """The student's sampled RoIs and their targets."""
        return dict(
            rois=f'roi_head.bbox_roi_extractor{self.stage}@in',
            targets=f'roi_head.bbox_head{self.stage}.get_targets()',
        )

    def bind(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        """Check that labels of the student are columns of the teacher.

        Raises:
            ConfigError: If the second stages have different numbers of classes.
        """
        super().bind(student, teacher, key)
        if not hasattr(student, 'roi_head'):
            raise ConfigError(
                f'{key}.adapter: StageClassifier needs a two-stage student, and {type(student).__name__} has no RoIs; '
                "expected adapter=dict(type='kd_det.DenseRows') on 'bbox_head[0]'."
            )
        ours, theirs = _classes(student), _classes(teacher)
        if None not in (ours, theirs) and ours != theirs:
            raise ConfigError(
                f'{key}: the second stage of the student has {ours} classes, that of the teacher {theirs}; expected as '
                'many. Train the teacher on the same classes, or distil on the neck.'
            )

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        if not isinstance(student, Tensor) or student.dim() != 4:
            raise ConfigError(
                f'{key}.student: the reading is {describe(student)}; expected one map of the backbone, such as '
                "'backbone[0]' or 'backbone.layer1'."
            )
        rois, _ = self._regions(context)
        if not isinstance(teacher, Tensor) or teacher.dim() != 2 or len(teacher) != len(rois):
            raise ConfigError(
                f'{key}.teacher: the reading is {describe(teacher)}; expected one row of class scores for each of the '
                f"{len(rois)} RoIs, such as 'roi_head.bbox_head[0]' of a two-stage teacher."
            )
        self.stride = round(context['batch_input_shape'][0] / student.shape[2])
        self.projector = OFAProjector(student.shape[1], teacher.shape[1], self.stages_behind, self.out_channels)
        self.projector.to(student.device)
        self.notes = [f'RoIs {self.roi_size}x{self.roi_size}, {self.stages_behind} blocks, {teacher.shape[1]} classes']

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        rois, labels = self._regions(context)
        chosen = (labels >= 0) & (labels < teacher.shape[1] - 1)
        if int(chosen.sum()) < _FEWEST:
            nothing = torch.stack([x.sum() * 0.0 for x in (student, *self.projector.parameters())]).sum()
            return [Pair(nothing.expand(0, teacher.shape[1]), teacher[:0], dict(labels=labels[:0]))]
        pooled = roi_align(student, rois[chosen].to(student), self.roi_size, 1 / self.stride, 0, 'avg', True)
        return [Pair(self.projector(pooled), teacher[chosen], dict(labels=labels[chosen]))]

    @staticmethod
    def _regions(context: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The student's sampled RoIs (N, 5) and their labels (N,)."""
        return extracted_rois(context['rois']), context['targets'][0]


def _classes(network: nn.Module) -> int | None:
    """The number of classes of a second stage, of the first stage of a cascade; None without a second stage."""
    head = getattr(getattr(network, 'roi_head', None), 'bbox_head', None)
    return getattr(head[0] if isinstance(head, nn.ModuleList) else head, 'num_classes', None)
