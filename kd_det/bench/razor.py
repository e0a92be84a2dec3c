"""The same distillation with mmrazor, to be timed beside ours, for the losses that mmrazor has.

Its losses get our weights and options. What differs, or has to be folded into a weight:

=============  ===================================================================================================
our loss       mmrazor's
=============  ===================================================================================================
``ABLoss``     ``ABLoss``; the factor of a level is in its weight, and the connector's convolution has no bias.
``ATLoss``     ``ATLoss``, times the positions of the map where ours sums over them.
``CWDLoss``    ``ChannelWiseDivergence``; it counts padding, where ours leaves it out.
``DISTLoss``   ``DISTLoss``, which always takes a soft-max, also for the sigmoid heads where ours takes a sigmoid.
``DKDLoss``    ``DKDLoss``, whose sum over the rows is divided by their number.
``FBKDLoss``   ``FBKDLoss``; its connector pools by 2 once more, so the stride is halved.
``FitNetLoss`` ``L2Loss``, without normalising and over the number of elements.
``FTLoss``     ``FTLoss``, with a paraphraser of random weights, whatever a first stage has made.
``KDLoss``     ``KLDivergence``; of a sigmoid head each class is a soft-max over its logit and 0, which is the same.
``MGDLoss``    ``MGDLoss``.
``OFDLoss``    ``OFDLoss``; the factor of a level is in its weight, and the margins are computed once.
``PKDLoss``    ``PKDLoss``.
=============  ===================================================================================================

Rows of a dense head are those of the student's foreground, picked out of both heads' outputs by :class:`Rows`. Of a
second stage mmrazor cannot run the teacher's head on the student's RoIs: the teacher's samples (anchors and RoIs) are
delivered to the student instead, which trains on them. They are as many, but not those that ours compares.

Where widths differ, the student passes a 1x1 convolution, as in ours. mmrazor's other losses on detectors, ``CRDLoss``
and those of RKD, take one row per object, and nothing in mmrazor pools boxes out of a pyramid.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.registry import MODELS as MMDET
from mmengine.config import ConfigDict
from torch import Tensor, nn

from kd_det.adapters.dense import _READERS
from kd_det.adapters.rows import flatten_anchors
from kd_det.compat import import_mmrazor
from kd_det.errors import ConfigError
from kd_det.losses.ofd import margin_from_bn
from kd_det.taps import Tap

__all__ = ['KINDS', 'METHODS', 'Margin', 'PositionSum', 'Rows', 'razor_detector']

#: How mmrazor runs the teacher: as deep as its neck, or whole, with its losses.
KINDS = ('FpnTeacherDistill', 'SingleTeacherDistill')

#: More samplings than a step has: of each image, by the RPN and by the second stage.
_SAMPLINGS = 10**6


class PositionSum(nn.Module):
    """A loss of mmrazor that is a mean over positions, as the sum over them.

    Args:
        loss: Its config.
    """

    def __init__(self, loss: dict[str, Any]) -> None:
        super().__init__()
        self.loss = _built(loss)

    def forward(self, s_feature: Tensor, t_feature: Tensor) -> Tensor:
        """Maps of shape (B, C, H, W), the student's and the teacher's, to a scalar."""
        return self.loss(s_feature, t_feature) * s_feature[0, 0].numel()


class Rows(nn.Module):
    """A loss of mmrazor on rows of logits: of the student's foreground in a dense head, or of all RoIs.

    Args:
        loss: Its config.
        head: Class of the student's dense head, whose targets are read; None for a second stage.
        classes: Number of classes of the head, without background.
        labelled: Whether the loss asks for the label of each row.
        divided: Whether the loss is a sum, which is divided by the number of rows, at least 1.
        binary: Whether each class is a row of its own: its logit and 0.
    """

    def __init__(
        self,
        loss: dict[str, Any],
        head: str | None,
        classes: int,
        labelled: bool = False,
        divided: bool = True,
        binary: bool = False,
    ) -> None:
        super().__init__()
        self.loss, self.classes = _built(loss), classes
        self.labelled, self.divided, self.binary = labelled, divided, binary
        self._read = None if head is None else _READERS[head]

    def forward(self, preds_S: Any, preds_T: Any, targets: Any) -> Tensor:
        """Compute the loss.

        Args:
            preds_S: The student's logits: rows (N, K) of RoIs, or maps (B, A·K, H, W), one per level.
            preds_T: The teacher's.
            targets: What ``get_targets`` of the student's head returned.

        Returns:
            Scalar.
        """
        student, teacher, labels = preds_S, preds_T, targets[0]
        if self._read is not None:
            student, teacher, labels = self._foreground(preds_S, preds_T, targets)
        number = max(len(student), 1) if self.divided else 1
        if self.binary:
            student, teacher = (torch.stack((x, torch.zeros_like(x)), -1).flatten(0, 1) for x in (student, teacher))
        return self.loss(student, teacher, *([labels] if self.labelled else [])) / number

    def _foreground(self, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (N, K) of both heads, and their labels (N,)."""
        *heads, targets = args
        labels, weights = self._read(targets)
        images = len(heads[0][0])
        sizes = [level.numel() // images for level in labels]
        labels = torch.cat([level.reshape(images, -1) for level in labels], 1)
        chosen = (labels >= 0) & (labels < self.classes)
        if weights is not None:
            chosen &= torch.cat([level.reshape(images, -1) for level in weights], 1) > 0
        student, teacher = (flatten_anchors(levels, sizes, 'mmrazor')[chosen] for levels in heads)
        return student, teacher, labels[chosen]


class Margin(nn.Module):
    """mmrazor's connector of OFD for the teacher's map, with the margins of a batch norm, taken at the first call.

    Args:
        norm: Path of the batch norm in the teacher.
    """

    def __init__(self, norm: str) -> None:
        super().__init__()
        self.norm, self.connector = norm, _built(dict(type='OFDTeacherConnector'))
        self._found: list[nn.Module] = []  # not a part of this one

    def bind(self, teacher: nn.Module) -> None:
        """Find the batch norm in a teacher."""
        self._found = [teacher.get_submodule(self.norm)]

    def forward(self, maps: Tensor) -> Tensor:
        """The teacher's map (B, C, H, W), no lower than the margins (C,)."""
        if self.connector.margin is None:
            (norm,) = self._found
            self.connector.init_margin(margin_from_bn(norm.weight, norm.bias)[:, None, None])
        return self.connector(maps)


def _built(cfg: dict[str, Any]) -> nn.Module:
    from mmrazor.registry import MODELS

    return MODELS.build(cfg)


# ---------------------------------------------------------------------------------------------------------- the losses


@dataclass
class _Place:
    """What is read of one network.

    Attributes:
        recorder: Config of mmrazor's recorder.
        entry: How the reading is picked from it.
        width: Channels of a map; 0 of class scores.
        norm: Path of the batch norm before it; empty if there is none.
    """

    recorder: dict[str, Any]
    entry: dict[str, Any]
    width: int = 0
    norm: str = ''


@dataclass
class _Pair:
    """One loss of mmrazor's.

    Attributes:
        weight: Of the term and of our loss.
        options: Of our loss, without its weight.
        student: What the student gives.
        teacher: What the teacher gives.
        later: How many levels of the term come after this one.
        rows: Options of :class:`Rows`.
    """

    weight: float
    options: dict[str, Any]
    student: _Place
    teacher: _Place
    later: int
    rows: dict[str, Any]

    def convolution(self, always: bool = False, **options: Any) -> list[dict[str, Any]]:
        """The student's connector where widths differ."""
        widths = dict(in_channel=self.student.width, out_channel=self.teacher.width)
        needed = always or self.student.width != self.teacher.width
        return [dict(type='ConvModuleConnector', **widths, act_cfg=None, **options)] if needed else []

    def named(self, **names: str) -> dict[str, Any]:
        """Our options under mmrazor's names, those that are set."""
        return {theirs: self.options[ours] for ours, theirs in names.items() if ours in self.options}


#: The loss, the connectors of the student and those of the teacher.
_Parts = tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]


def _ab(pair: _Pair) -> _Parts:
    weight = pair.weight * 0.5**pair.later
    loss = dict(type='ABLoss', loss_weight=weight, **pair.named(margin='margin'))
    return loss, pair.convolution(norm_cfg=dict(type='BN')), []


def _at(pair: _Pair) -> _Parts:
    loss = dict(type='ATLoss', loss_weight=pair.weight)
    return (dict(type=PositionSum, loss=loss) if pair.options.get('sum_positions') else loss), [], []


def _cwd(pair: _Pair) -> _Parts:
    loss = dict(type='ChannelWiseDivergence', loss_weight=pair.weight, **pair.named(tau='tau'))
    return loss, pair.convolution(), []


def _fbkd(pair: _Pair) -> _Parts:
    if pair.student.width != pair.teacher.width:
        raise ConfigError(
            f'mmrazor: its FBKDLoss needs maps of one width, found {pair.student.width} and {pair.teacher.width}.'
        )
    pools = pair.options.get('sub_sample', False)
    options = dict(
        reduction=pair.options.get('reduction', 2), sub_sample=pools,
        maxpool_stride=pair.options.get('maxpool_stride', 2) // (2 if pools else 1),  # it pools by 2 once more
    )  # fmt: skip
    sides = ('Student', pair.student.width), ('Teacher', pair.teacher.width)
    both = [[dict(type=f'FBKD{who}Connector', in_channels=width, **options)] for who, width in sides]
    return dict(type='FBKDLoss', loss_weight=pair.weight), *both


def _fitnet(pair: _Pair) -> _Parts:
    loss = dict(type='L2Loss', loss_weight=pair.weight, normalize=False, div_element=True)
    return loss, pair.convolution(), []


def _ft(pair: _Pair) -> _Parts:
    width = round(pair.options.get('k', 0.5) * pair.teacher.width)
    bn = pair.options.get('translator_bn', False)
    student = dict(type='Translator', in_channel=pair.student.width, out_channel=width, use_bn=bn)
    teacher = dict(type='Paraphraser', in_channel=pair.teacher.width, out_channel=width, phase='train')
    return dict(type='FTLoss', loss_weight=pair.weight), [student], [teacher]


def _mgd(pair: _Pair) -> _Parts:
    connector = dict(
        type='MGDConnector', student_channels=pair.student.width, teacher_channels=pair.teacher.width,
        lambda_mgd=pair.options.get('lambda_mgd', 0.65),
    )  # fmt: skip
    return dict(type='MGDLoss', alpha_mgd=pair.weight * pair.options.get('alpha_mgd', 2e-5)), [connector], []


def _ofd(pair: _Pair) -> _Parts:
    if not pair.teacher.norm:
        raise ConfigError(
            "mmrazor: OFDLoss without adapter=dict(type='kd_det.TeacherNorms') measures its margins, which mmrazor's "
            'does not; expected that adapter.'
        )
    loss = dict(type='OFDLoss', loss_weight=pair.weight * 0.5**pair.later)
    loss['mul_factor'] = pair.options.get('loss_divisor', 1000.0)
    return loss, pair.convolution(always=True, norm_cfg=dict(type='BN')), [dict(type=Margin, norm=pair.teacher.norm)]


def _pkd(pair: _Pair) -> _Parts:
    return dict(type='PKDLoss', loss_weight=pair.weight, **pair.named(resize_stu='resize_stu')), pair.convolution(), []


def _dist(pair: _Pair) -> _Parts:
    names = pair.named(beta='inter_loss_weight', gamma='intra_loss_weight', tau='tau')
    loss = dict(type='DISTLoss', loss_weight=pair.weight, **names)
    return dict(type=Rows, loss=loss, divided=False, **pair.rows), [], []


def _dkd(pair: _Pair) -> _Parts:
    options = dict(tau=1.0, alpha=1.0, beta=0.25) | pair.named(alpha='alpha', beta='beta', temperature='tau')
    loss = dict(type='DKDLoss', loss_weight=pair.weight, reduction='sum', **options)
    return dict(type=Rows, loss=loss, labelled=True, **pair.rows), [], []


def _kd(pair: _Pair) -> _Parts:
    loss = dict(type='KLDivergence', loss_weight=pair.weight, reduction='sum', tau=pair.options.get('T', 4.0))
    return dict(type=Rows, loss=loss, binary=pair.options.get('use_sigmoid', False), **pair.rows), [], []


@dataclass(frozen=True)
class _Method:
    """How one of our losses becomes one of mmrazor's.

    Attributes:
        parts: The work.
        takes: The options of our loss that are carried over, each with the values that can be; None for all numbers.
        reads: 'maps' or 'rows' of class scores.
    """

    parts: Callable[[_Pair], _Parts]
    takes: dict[str, Sequence[Any] | None]
    reads: str = 'maps'


_EITHER = (True, False)

#: Our losses that mmrazor has, by name.
METHODS: dict[str, _Method] = dict(
    ABLoss=_Method(_ab, dict(margin=None)),
    ATLoss=_Method(_at, dict(p=(2,), sum_positions=_EITHER)),
    CWDLoss=_Method(_cwd, dict(tau=None, mask_padding=_EITHER, standardize=(False,))),
    DISTLoss=_Method(
        _dist,
        dict(beta=None, gamma=None, tau=None, use_sigmoid=_EITHER, standardize=(False,), foreground_only=(False,)),
        'rows',
    ),
    DKDLoss=_Method(
        _dkd, dict(alpha=None, beta=None, temperature=None, standardize=(False,), foreground_only=(False,)), 'rows'
    ),
    FBKDLoss=_Method(_fbkd, dict(reduction=None, sub_sample=_EITHER, maxpool_stride=None)),
    FitNetLoss=_Method(_fitnet, dict(regressor=('conv1x1',))),
    FTLoss=_Method(_ft, dict(k=None, stage=('transfer',), form=('paper',), translator_bn=_EITHER)),
    KDLoss=_Method(_kd, dict(T=None, use_sigmoid=_EITHER, standardize=(False,)), 'rows'),
    MGDLoss=_Method(_mgd, dict(alpha_mgd=None, lambda_mgd=None, mask_type=('spatial',))),
    OFDLoss=_Method(_ofd, dict(loss_divisor=None, reduction=('sum',), margin_momentum=(None,))),
    PKDLoss=_Method(_pkd, dict(resize_stu=_EITHER)),
)


# -------------------------------------------------------------------------------------------------------- the detector


def razor_detector(kind: str, student: dict[str, Any], teacher: dict[str, Any], terms: dict[str, Any]) -> nn.Module:
    """A detector of mmrazor that distils as our terms do, with random weights.

    Args:
        kind: One of :data:`KINDS`.
        student: mmdet's config of the student's ``model``.
        teacher: mmdet's config of the teacher's ``model``.
        terms: Our terms: their taps, adapters, weights, losses and the losses' options.

    Raises:
        ConfigError: If mmrazor has no such loss, or it cannot do the work of a term.
    """
    for name, term in terms.items():
        _check_term(name, term, kind)
    import_mmrazor()
    from mmrazor.registry import MODELS

    student_recorders, teacher_recorders, losses, mappings, connectors, deliveries = ({} for _ in range(6))
    for name, term in terms.items():
        for level, pair in enumerate(_pairs(name, term, student, teacher)):
            key = f'loss_{name}_{level}'
            losses[key], *between = METHODS[_loss_name(term)].parts(pair)
            cls = losses[key]['type']
            cls = MODELS.get(cls) if isinstance(cls, str) else cls
            arguments = list(inspect.signature(cls.forward).parameters)[1:]
            mappings[key] = {}
            sides = (pair.student, student_recorders), (pair.teacher, teacher_recorders)
            for argument, (place, recorders), chain in zip(arguments, sides, between):
                chain = chain + _norm(term, pair.teacher.width)
                source = place.recorder['source']
                recorders[source] = place.recorder
                entry = dict(recorder=source, from_student=recorders is student_recorders, **place.entry)
                if chain:
                    entry['connector'] = f'{key}_{argument}'
                    connectors[entry['connector']] = chain
                mappings[key][argument] = entry
            if pair.rows:
                targets = _targets(term, student)
                student_recorders[targets] = dict(type='MethodOutputs', source=targets)
                mappings[key]['targets'] = dict(recorder=targets, from_student=True)
                if pair.rows['head'] is None:
                    path = 'mmdet.models.task_modules.samplers.base_sampler.BaseSampler.sample'
                    deliveries['samples'] = dict(type='MethodOutputs', method_path=path, max_keep_data=_SAMPLINGS)
    distiller = dict(
        type='ConfigurableDistiller', student_recorders=student_recorders, teacher_recorders=teacher_recorders,
        distill_losses=losses, loss_forward_mappings=mappings, connectors=connectors, distill_deliveries=deliveries,
    )  # fmt: skip
    student, teacher = (ConfigDict(copy.deepcopy(network), _scope_='mmdet') for network in (student, teacher))
    cfg = dict(type=kind, _scope_='mmrazor', architecture=student, teacher=teacher, distiller=distiller)
    model = MODELS.build(cfg)
    for network, recorders in ((model.student, student_recorders), (model.teacher, teacher_recorders)):
        for recorder in recorders.values():
            if recorder['type'] == 'ModuleInputs':  # mmrazor means to do so everywhere, and finds none in a plain dict
                network.get_submodule(recorder['source']).inplace = False
    for connector in model.distiller.connectors.modules():
        if isinstance(connector, Margin):
            connector.bind(model.teacher)
    return model


def _loss_name(term: dict[str, Any]) -> str:
    return str(term['loss']['type']).split('.')[-1]


def _adapter_name(term: dict[str, Any]) -> str:
    return str((term.get('adapter') or dict(type='Align'))['type']).split('.')[-1]


def _check_term(name: str, term: dict[str, Any], kind: str) -> None:
    """Refuse what mmrazor cannot do.

    Raises:
        ConfigError: If it has no such loss, or not with these options, this adapter or these taps.
    """
    where, loss = f'mmrazor: distill.{name}', _loss_name(term)
    if loss in ('CRDLoss', 'RKDLoss'):
        raise ConfigError(
            f'{where}: its loss for {loss} takes one row per object, and it pools no boxes out of a pyramid.'
        )
    if loss not in METHODS:
        raise ConfigError(
            f'{where}: it has no loss that does the work of {loss}; expected one of {", ".join(METHODS)}.'
        )
    method = METHODS[loss]
    for option, value in term['loss'].items():
        if option in ('type', 'loss_weight', 'paraphraser'):
            continue
        values = method.takes.get(option, ())
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_number if values is None else value in values):
            raise ConfigError(f'{where}: it has nothing for {option}={value!r} of {loss}.')
    if term.get('inputs'):
        raise ConfigError(f'{where}: found inputs={term["inputs"]!r}; expected none.')
    adapter = term.get('adapter') or {}
    options = {key: value for key, value in adapter.items() if key != 'type'}
    norm = _EITHER if loss in ('ATLoss', 'CWDLoss', 'PKDLoss') else (False,)  # the others' own layers come after it
    good = dict(
        maps=dict(Align=dict(norm=norm), **(dict(TeacherNorms={}) if loss == 'OFDLoss' else {})),
        rows=dict(DenseRows=dict(select=('assigned',), normalize=(None, 'positives')), RoIRows={}),
    )[method.reads]
    choices = good.get(_adapter_name(term))
    if choices is None or any(value not in choices.get(key, ()) for key, value in options.items()):
        raise ConfigError(
            f'{where}: it has nothing that does the work of adapter={adapter!r} for {loss}; expected '
            f'{" or ".join(good)} as in configs/_base_/distill.'
        )
    if method.reads == 'rows' and kind == 'FpnTeacherDistill':
        raise ConfigError(
            f"{where}: FpnTeacherDistill runs the teacher's backbone and neck alone, and the term reads "
            f'{term["teacher"]!r}; expected SingleTeacherDistill.'
        )


def _pairs(name: str, term: dict[str, Any], student: dict[str, Any], teacher: dict[str, Any]) -> list[_Pair]:
    """The readings of a term, level by level."""
    options = {key: value for key, value in term['loss'].items() if key not in ('type', 'loss_weight')}
    weight = term.get('weight', 1.0) * term['loss'].get('loss_weight', 1.0)
    reads, rows = METHODS[_loss_name(term)].reads, {}
    sides = []
    for side, network in (('student', student), ('teacher', teacher)):
        taps = term[side] if isinstance(term[side], (list, tuple)) else [term[side]]
        taps = [Tap.parse(tap, f'distill.{name}.{side}') for tap in taps]
        norms = _adapter_name(term) == 'TeacherNorms'
        sides.append([_scores(taps)] if reads == 'rows' else [p for tap in taps for p in _maps(tap, network, norms)])
    if len(sides[0]) != len(sides[1]):
        raise ConfigError(f'mmrazor: distill.{name}: found {len(sides[0])} and {len(sides[1])} levels.')
    if reads == 'rows':
        head = _head(term, student)
        rows = dict(head=None if _adapter_name(term) == 'RoIRows' else _owner(head).__name__)
        rows['classes'] = head.get('num_classes', 80)  # mmdet's default, where it has one
        anchors = [network.get('rpn_head', {}).get('anchor_generator') for network in (student, teacher)]
        if rows['head'] is None and anchors[0] != anchors[1]:
            raise ConfigError(
                f'mmrazor: distill.{name}: the RPNs of student and teacher have other anchors; expected the same, '
                "since the student trains on the teacher's samples."
            )
    levels = len(sides[0])
    return [_Pair(weight, options, s, t, levels - 1 - i, rows) for i, (s, t) in enumerate(zip(*sides))]


def _norm(term: dict[str, Any], width: int) -> list[dict[str, Any]]:
    """The connector of ``Align(norm=True)``."""
    if not (term.get('adapter') or {}).get('norm'):
        return []
    norm = dict(type='BN', affine=False, eps=1e-3, track_running_stats=False)
    return [dict(type='NormConnector', in_channels=width, norm_cfg=norm)]


def _maps(tap: Tap, network: dict[str, Any], with_norm: bool) -> list[_Place]:
    """The maps that a tap reads.

    Raises:
        ConfigError: If it reads anything but levels of the neck, or a stage of a ResNet before its last activation.
    """
    if tap.path == 'neck' and tap.kind == 'output' and not tap.owner and len(tap.index) < 2:
        neck = network.get('neck')
        if not isinstance(neck, dict) or not neck.get('out_channels'):
            raise ConfigError(f'mmrazor: a term reads {tap.text!r}; expected a neck with out_channels, found {neck!r}.')
        widths = neck['out_channels']  # of a neck like SSD's one for each level
        if isinstance(widths, int):
            widths = [widths] * (neck.get('num_outs') or len(neck['in_channels']))
        levels: Sequence[int] = range(len(widths))
        for index in tap.index:
            levels = levels[index] if isinstance(index, slice) else [levels[index]]
        recorder = dict(type='ModuleOutputs', source='neck')
        return [_Place(recorder, dict(data_idx=level), widths[level]) for level in levels]
    backbone = network.get('backbone') or {}
    cls = MMDET.get(backbone.get('type', ''))
    stage = tap.path.removeprefix('backbone.layer')
    if (
        tap.kind == 'pre'
        and not tap.owner
        and not tap.index
        and stage in ('1', '2', '3', '4')
        and hasattr(cls, 'arch_settings')
    ):
        block, blocks = cls.arch_settings[backbone['depth']]
        width = backbone.get('base_channels', 64) * 2 ** (int(stage) - 1) * block.expansion
        last = f'{tap.path}.{blocks[int(stage) - 1] - 1}'
        norm = f'{last}.bn{2 if block.expansion == 1 else 3}' if with_norm else ''
        return [_Place(dict(type='ModuleInputs', source=f'{last}.relu'), dict(record_idx=-1, data_idx=0), width, norm)]
    raise ConfigError(
        f'mmrazor: a term reads {tap.text!r}; expected levels of the neck, such as neck[0:4], or a stage of a ResNet, '
        'such as backbone.layer3@pre.'
    )


def _scores(taps: list[Tap]) -> _Place:
    """Class scores of a head.

    Raises:
        ConfigError: If the tap reads anything else.
    """
    tap = taps[0]
    if len(taps) > 1 or tap.text not in ('bbox_head[0]', 'roi_head.bbox_head[0]'):
        raise ConfigError(f'mmrazor: a term reads {tap.text!r}; expected bbox_head[0] or roi_head.bbox_head[0].')
    return _Place(dict(type='ModuleOutputs', source=tap.path), dict(data_idx=0))


def _head(term: dict[str, Any], network: dict[str, Any]) -> dict[str, Any]:
    """Config of the head whose class scores a term reads."""
    for part in Tap.parse(term['student']).path.split('.'):
        network = network.get(part)
        if not isinstance(network, dict):
            raise ConfigError(f'mmrazor: a term reads {term["student"]!r}, and the student has not one such head.')
    return network


def _owner(head: dict[str, Any]) -> type:
    """The class of mmdet that defines ``get_targets`` of a head."""
    return next((cls for cls in MMDET.get(head['type']).__mro__ if 'get_targets' in vars(cls)), object)


def _targets(term: dict[str, Any], student: dict[str, Any]) -> str:
    """The path of the student's ``get_targets``."""
    owner = _owner(_head(term, student))
    return f'{owner.__module__}.{owner.__qualname__}.get_targets'
