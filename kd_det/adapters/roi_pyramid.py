"""RoI maps through a pyramid and each network's own classifier, for SDD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.losses.sdd import regional_logits
from kd_det.registry import MODELS
from kd_det.taps import Tap, describe

from .base import Adapter, Pair


@MODELS.register_module()
class RoIPyramid(Adapter):
    """Logits of the regions of each RoI, by the classifier that each network has for the whole.

    The term's taps read the map that the second stage pools before it classifies, on the student's sampled RoIs:
    ``roi_head.bbox_head@in[0]`` of mmdet's ``BBoxHead(with_avg_pool=True)`` (the C4 head), or the last convolution of a
    ``ConvFCBBoxHead(with_avg_pool=True)`` without fully connected layers (``roi_head.bbox_head.shared_convs.3``); of a
    cascade those of one stage (``roi_head.bbox_head.0@in[0]``). The map is pooled by the pyramid, and ``fc_cls`` scores
    each region. Heads that flatten the map (``Shared2FCBBoxHead``) have no classifier for a region.

    The pair has logits (N, K + 1, R), background last, the whole first, and the extras ``labels`` and
    ``label_weights`` (N,), the student's own targets.

    Args:
        M: Sizes of the grids, see :func:`~kd_det.losses.sdd.spatial_pyramid`.
    """

    def __init__(self, M: Sequence[int] = (1, 2, 4)) -> None:
        super().__init__()
        self.M = tuple(M)
        self.key = 'distill'

    @property
    def inputs(self) -> dict[str, str]:
        """The student's targets, of the same stage of a cascade."""
        return dict(targets=f'{_head_path(self.student_tap)}.get_targets()')

    def bind(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        super().bind(student, teacher, key)
        self.key = key
        check_classifier(student, self.student_tap, f'{key}.student')
        check_classifier(teacher, self.teacher_taps[0], f'{key}.teacher')

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        regions = sum(m * m for m in self.M)
        self.notes = [f'{regions} regions, own classifiers']
        self(student, teacher, context)

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        logits = [
            self._score(student, self.student_net.module, self.student_tap, 'student'),
            self._score(teacher, self.teacher_net.module, self.teacher_taps[0], 'teacher').detach(),
        ]
        if logits[0].shape != logits[1].shape:
            raise ConfigError(
                f'{self.key}: the classifiers give {tuple(logits[0].shape)} in the student and '
                f'{tuple(logits[1].shape)} in the teacher (RoIs, classes with background, regions). Expected the same '
                'number of classes: train the teacher on the same classes.'
            )
        targets = context.get('targets')
        if not isinstance(targets, (list, tuple)) or len(targets) != 4 or not isinstance(targets[0], Tensor):
            raise ConfigError(
                f'{self.key}.inputs.targets: found {describe(targets)}, expected '
                f'{_head_path(self.student_tap)}.get_targets(): labels, weights, box targets, weights.'
            )
        return [Pair(*logits, dict(labels=targets[0], label_weights=targets[1]))]

    def _score(self, maps: Any, network: nn.Module, tap: Tap, side: str) -> Tensor:
        classifier = network.get_submodule(_head_path(tap)).fc_cls
        if not isinstance(maps, Tensor) or maps.dim() != 4 or maps.shape[1] != classifier.in_features:
            raise ConfigError(
                f'{self.key}.{side}: {tap.text!r} gives {describe(maps)}; expected RoI maps of shape '
                f'(RoIs, {classifier.in_features}, h, w), as fc_cls takes them.'
            )
        return regional_logits(maps, classifier, self.M)


def check_classifier(network: nn.Module, tap: Tap, key: str) -> None:
    """Check that what follows a tap is a mean over the map and a linear classifier, and nothing else.

    Args:
        network: The detector.
        tap: The term's tap into it.
        key: The config key to blame.

    Raises:
        ConfigError: If not; the message says which heads fit.
    """
    path = _head_path(tap)
    try:
        head = network.get_submodule(path)
    except AttributeError:
        head = None
    fits = (
        "expected 'roi_head.bbox_head@in[0]' of a BBoxHead(with_avg_pool=True), as in mmdet's "
        'faster-rcnn_r50-caffe_c4-1x_coco.py'
    )
    if type(getattr(head, 'fc_cls', None)) is not nn.Linear:
        raise ConfigError(
            f'{key}: {tap.text!r} is in no box head of a second stage with a plain linear fc_cls; {fits}.'
        )
    name = type(head).__name__
    hidden = [*getattr(head, 'shared_fcs', ()), *getattr(head, 'cls_fcs', ())]
    if not head.with_avg_pool or hidden:
        raise ConfigError(
            f'{key}: {name} has no classifier for a part of the map: it '
            f'{"has fully connected layers before fc_cls" if head.with_avg_pool else "flattens the map"}; {fits}, or '
            'the last convolution of a ConvFCBBoxHead(with_avg_pool=True) without fully connected layers.'
        )
    convs = [
        f'{path}.{part}.{i}' for part in ('shared_convs', 'cls_convs') for i in range(len(getattr(head, part, ())))
    ]
    wanted = Tap.parse(convs[-1] if convs else f'{path}@in[0]')
    if (tap.source, tap.index) != (wanted.source, wanted.index):
        raise ConfigError(f'{key}: {tap.text!r} is not what {name} classifies; expected {wanted.text!r}.')


def _head_path(tap: Tap | None) -> str:
    """``'roi_head.bbox_head'``, or a stage of a cascade."""
    parts = tap.path.split('.') if tap is not None else []
    return '.'.join(['roi_head', 'bbox_head', *(part for part in parts[2:3] if part.isdigit())])
