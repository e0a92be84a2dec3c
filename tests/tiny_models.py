"""Detectors of a few thousand weights and batches of small images: whole networks run in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import kd_det  # noqa: F401
from kd_det.registry import MODELS

register_all_modules(init_default_scope=True)

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)


def preprocessor(divisor: int = 32, **options: Any) -> dict[str, Any]:
    return dict(type='DetDataPreprocessor', pad_size_divisor=divisor, **{**IMAGENET, **options})


def backbone(base: int = 8, **options: Any) -> dict[str, Any]:
    """ResNet-18 with ``base``, 2, 4 and 8 times ``base`` channels."""
    cfg = dict(
        type='ResNet', depth=18, base_channels=base, stem_channels=base, num_stages=4, frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True), norm_eval=True, style='pytorch', init_cfg=None,
    )  # fmt: skip
    return {**cfg, **options}


def fpn(base: int = 8, channels: int = 16, outs: int = 3, start: int = 1, **options: Any) -> dict[str, Any]:
    return dict(
        type='FPN', in_channels=[base * 2**i for i in range(4)], out_channels=channels, start_level=start,
        num_outs=outs, **options,
    )  # fmt: skip


def deltas() -> dict[str, Any]:
    return dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[1.0] * 4)


def anchors(strides: Sequence[int] = (8, 16, 32)) -> dict[str, Any]:
    return dict(
        type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[0.5, 1.0], strides=list(strides)
    )


def assigner(low: float = 0.4, high: float = 0.5) -> dict[str, Any]:
    return dict(type='MaxIoUAssigner', pos_iou_thr=high, neg_iou_thr=low, min_pos_iou=0, ignore_iof_thr=-1)


TEST = dict(nms_pre=50, min_bbox_size=0, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)


def retina(classes: int = 3, channels: int = 16, base: int = 8, **parts: Any) -> dict[str, Any]:
    cfg = dict(
        type='RetinaNet', data_preprocessor=preprocessor(), backbone=backbone(base), neck=fpn(base, channels),
        bbox_head=dict(
            type='RetinaHead', num_classes=classes, in_channels=channels, stacked_convs=1, feat_channels=channels,
            anchor_generator=anchors(), bbox_coder=deltas(),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
            loss_bbox=dict(type='L1Loss', loss_weight=1.0),
        ),
        train_cfg=dict(assigner=assigner(), sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1),
        test_cfg=TEST,
    )  # fmt: skip
    return {**cfg, **parts}


def fcos(classes: int = 3, channels: int = 16, base: int = 8, **parts: Any) -> dict[str, Any]:
    cfg = dict(
        type='FCOS', data_preprocessor=preprocessor(), backbone=backbone(base), neck=fpn(base, channels),
        bbox_head=dict(
            type='FCOSHead', num_classes=classes, in_channels=channels, stacked_convs=1, feat_channels=channels,
            strides=[8, 16, 32], regress_ranges=((-1, 32), (32, 64), (64, 1e8)), norm_cfg=None,
        ),
        test_cfg=TEST,
    )  # fmt: skip
    return {**cfg, **parts}


def gfl(classes: int = 3, channels: int = 16, base: int = 8, **parts: Any) -> dict[str, Any]:
    cfg = dict(
        type='GFL', data_preprocessor=preprocessor(), backbone=backbone(base), neck=fpn(base, channels),
        bbox_head=dict(
            type='GFLHead', num_classes=classes, in_channels=channels, stacked_convs=1, feat_channels=channels,
            norm_cfg=None, reg_max=4, loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0),
            loss_bbox=dict(type='GIoULoss', loss_weight=2.0), loss_dfl=dict(type='DistributionFocalLoss'),
            anchor_generator=dict(
                type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[8, 16, 32]
            ),
        ),
        train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=3), allowed_border=-1, pos_weight=-1), test_cfg=TEST,
    )  # fmt: skip
    return {**cfg, **parts}


def atss(classes: int = 3, channels: int = 16, base: int = 8, **parts: Any) -> dict[str, Any]:
    cfg = dict(
        type='ATSS', data_preprocessor=preprocessor(), backbone=backbone(base), neck=fpn(base, channels),
        bbox_head=dict(
            type='ATSSHead', num_classes=classes, in_channels=channels, stacked_convs=1, feat_channels=channels,
            norm_cfg=None, bbox_coder=dict(deltas(), target_stds=[0.1, 0.1, 0.2, 0.2]),
            anchor_generator=dict(
                type='AnchorGenerator', ratios=[1.0], octave_base_scale=4, scales_per_octave=1, strides=[8, 16, 32]
            ),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
            loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        ),
        train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=3), allowed_border=-1, pos_weight=-1), test_cfg=TEST,
    )  # fmt: skip
    return {**cfg, **parts}


def _attention(channels: int, deformable: bool = True) -> dict[str, Any]:
    cfg = dict(embed_dims=channels, num_heads=2, dropout=0.0, batch_first=True)
    return dict(cfg, num_levels=3, num_points=2) if deformable else cfg


def deformable(classes: int = 3, channels: int = 16, base: int = 8, layers: int = 1, **parts: Any) -> dict[str, Any]:
    """Deformable DETR with ``layers`` decoder layers, one encoder layer and ten queries."""
    ffn = dict(embed_dims=channels, feedforward_channels=32, ffn_drop=0.0)
    cfg = dict(
        type='DeformableDETR', num_queries=10, num_feature_levels=3, data_preprocessor=preprocessor(1),
        backbone=backbone(base, out_indices=(1, 2, 3)),
        neck=dict(
            type='ChannelMapper', in_channels=[base * 2**i for i in (1, 2, 3)], kernel_size=1, out_channels=channels,
            act_cfg=None, norm_cfg=dict(type='GN', num_groups=4), num_outs=3,
        ),
        encoder=dict(num_layers=1, layer_cfg=dict(self_attn_cfg=_attention(channels), ffn_cfg=ffn)),
        decoder=dict(
            num_layers=layers, return_intermediate=True, post_norm_cfg=None,
            layer_cfg=dict(
                self_attn_cfg=_attention(channels, False), cross_attn_cfg=_attention(channels), ffn_cfg=ffn
            ),
        ),
        positional_encoding=dict(num_feats=channels // 2, normalize=True, offset=-0.5),
        bbox_head=dict(
            type='DeformableDETRHead', num_classes=classes, embed_dims=channels,
            loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
            loss_bbox=dict(type='L1Loss', loss_weight=5.0), loss_iou=dict(type='GIoULoss', loss_weight=2.0),
        ),
        train_cfg=dict(
            assigner=dict(
                type='HungarianAssigner',
                match_costs=[
                    dict(type='FocalLossCost', weight=2.0), dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                    dict(type='IoUCost', iou_mode='giou', weight=2.0),
                ],
            )
        ),
        test_cfg=dict(max_per_img=10),
    )  # fmt: skip
    return {**cfg, **parts}


def dino(classes: int = 3, base: int = 8, layers: int = 2, **parts: Any) -> dict[str, Any]:
    """DINO with four denoising queries and ten of its own; mmdet's decoder of it works with 256 channels alone."""
    cfg = deformable(classes, 256, base, layers, type='DINO', with_box_refine=True, as_two_stage=True)
    cfg['bbox_head']['type'] = 'DINOHead'
    cfg['dn_cfg'] = dict(
        label_noise_scale=0.5, box_noise_scale=1.0, group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=4)
    )
    return {**cfg, **parts}


def ssd(classes: int = 3, channels: int = 16, base: int = 8, **parts: Any) -> dict[str, Any]:
    cfg = dict(
        type='SingleStageDetector', data_preprocessor=preprocessor(), backbone=backbone(base),
        neck=fpn(base, channels),
        bbox_head=dict(
            type='SSDHead', num_classes=classes, in_channels=(channels,) * 3,
            anchor_generator=dict(
                type='SSDAnchorGenerator', scale_major=False, input_size=64,
                min_sizes=[16, 28, 44], max_sizes=[28, 44, 64],
                strides=[8, 16, 32], ratios=[[2], [2, 3], [2]],
            ),
            bbox_coder=dict(
                type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]
            ),
        ),
        train_cfg=dict(
            assigner=dict(
                type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0, ignore_iof_thr=-1,
                gt_max_assign_all=False,
            ),
            sampler=dict(type='PseudoSampler'), smoothl1_beta=1.0, allowed_border=-1, pos_weight=-1, neg_pos_ratio=3,
        ),
        test_cfg=dict(nms_pre=50, nms=dict(type='nms', iou_threshold=0.45), score_thr=0.02, max_per_img=20),
    )  # fmt: skip
    return {**cfg, **parts}


def _rpn(channels: int) -> dict[str, Any]:
    return dict(
        type='RPNHead', in_channels=channels, feat_channels=channels, anchor_generator=anchors(), bbox_coder=deltas(),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True), loss_bbox=dict(type='L1Loss'),
    )  # fmt: skip


def _box_head(classes: int, channels: int, agnostic: bool = False) -> dict[str, Any]:
    return dict(
        type='Shared2FCBBoxHead', in_channels=channels, fc_out_channels=32, roi_feat_size=3, num_classes=classes,
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]),
        reg_class_agnostic=agnostic, loss_cls=dict(type='CrossEntropyLoss'), loss_bbox=dict(type='L1Loss'),
    )  # fmt: skip


def _extractor(channels: int) -> dict[str, Any]:
    return dict(
        type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', output_size=3, sampling_ratio=0),
        out_channels=channels, featmap_strides=[8, 16],
    )  # fmt: skip


_RPN_TRAIN = dict(
    assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.3, min_pos_iou=0.3, ignore_iof_thr=-1),
    sampler=dict(type='RandomSampler', num=32, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
    allowed_border=-1,
    pos_weight=-1,
)
_RPN_TEST = dict(nms_pre=30, max_per_img=20, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0)
_RCNN_TRAIN = dict(
    assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, ignore_iof_thr=-1),
    sampler=dict(type='RandomSampler', num=16, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
    pos_weight=-1,
)
_RCNN_TEST = dict(score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10)


def faster(classes: int = 3, channels: int = 16, base: int = 8, **parts: Any) -> dict[str, Any]:
    cfg = dict(
        type='FasterRCNN', data_preprocessor=preprocessor(), backbone=backbone(base), neck=fpn(base, channels),
        rpn_head=_rpn(channels),
        roi_head=dict(
            type='StandardRoIHead', bbox_roi_extractor=_extractor(channels), bbox_head=_box_head(classes, channels)
        ),
        train_cfg=dict(rpn=_RPN_TRAIN, rpn_proposal=_RPN_TEST, rcnn=_RCNN_TRAIN),
        test_cfg=dict(rpn=_RPN_TEST, rcnn=_RCNN_TEST),
    )  # fmt: skip
    return {**cfg, **parts}


def pooled_faster(classes: int = 3, channels: int = 16, base: int = 8, **parts: Any) -> dict[str, Any]:
    """Faster R-CNN whose box head takes the mean of the RoI map before it classifies, as the C4 head does."""
    cfg = faster(classes, channels, base, **parts)
    head = {key: value for key, value in _box_head(classes, channels).items() if key != 'fc_out_channels'}
    cfg['roi_head']['bbox_head'] = dict(head, type='BBoxHead', with_avg_pool=True)
    return cfg


def cascade(classes: int = 3, channels: int = 16, base: int = 8, **parts: Any) -> dict[str, Any]:
    cfg = faster(classes, channels, base)
    cfg['type'] = 'CascadeRCNN'
    cfg['roi_head'] = dict(
        type='CascadeRoIHead', num_stages=2, stage_loss_weights=[1, 0.5], bbox_roi_extractor=_extractor(channels),
        bbox_head=[_box_head(classes, channels, True), _box_head(classes, channels, True)],
    )  # fmt: skip
    cfg['train_cfg'] = dict(rpn=_RPN_TRAIN, rpn_proposal=_RPN_TEST, rcnn=[_RCNN_TRAIN, _RCNN_TRAIN])
    return {**cfg, **parts}


def raw_batch(
    sizes: Sequence[tuple[int, int]] = ((64, 96), (64, 96)),
    boxes: Sequence[int] = (2, 1),
    seed: int = 0,
    ignored: Sequence[int] | None = None,
    masks: bool = False,
) -> dict[str, Any]:
    """Images as a data loader gives them: uint8 and unpadded, with ``boxes[i]`` numbered objects each."""  # fmt: skip
    rng = np.random.default_rng(seed)
    inputs, samples, number = [], [], 0
    for index, ((height, width), count) in enumerate(zip(sizes, boxes)):
        inputs.append(torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8)))
        sample = DetDataSample(
            metainfo=dict(
                img_id=index, img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0),
                flip=False, img_path=f'{index}.png',
            )
        )  # fmt: skip
        sample.gt_instances = _instances(rng, count, height, width)
        sample.gt_instances.instance_ids = torch.arange(number, number + count)
        number += count
        if masks:
            sample.gt_instances.masks = _masks(sample.gt_instances.bboxes, height, width)
        sample.ignored_instances = _instances(rng, ignored[index] if ignored else 0, height, width)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def _instances(rng: np.random.Generator, count: int, height: int, width: int) -> InstanceData:
    size = np.stack([rng.uniform(20, 40, count), rng.uniform(20, 40, count)], 1)
    corner = rng.uniform(0, 1, (count, 2)) * (np.array([width, height]) - size)
    return InstanceData(
        bboxes=torch.from_numpy(np.concatenate([corner, corner + size], 1)).float(),
        labels=torch.from_numpy(rng.integers(0, 3, count)).long(),
    )


def _masks(boxes: torch.Tensor, height: int, width: int) -> BitmapMasks:
    masks = np.zeros((len(boxes), height, width), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:x2] = 1
    return BitmapMasks(masks, height, width)


def batch(model: Any, training: bool = True, **options: Any) -> tuple[torch.Tensor, list[DetDataSample]]:
    """A batch as ``model.loss`` gets it, through the model's own data preprocessor."""
    options.setdefault('masks', getattr(model, 'with_mask', False))
    data = model.data_preprocessor(raw_batch(**options), training)
    return data['inputs'], data['data_samples']


def build(cfg: dict[str, Any], seed: int | None = None, init: bool = True) -> Any:
    """A plain detector of mmdet, with random weights, in training mode."""
    if seed is not None:
        torch.manual_seed(seed)
    model = MODELS.build(ConfigDict(cfg, _scope_='mmdet'))
    if init:
        model.init_weights()
    return model.train()


def cwd(student: str = 'neck', teacher: str | None = None, **options: Any) -> dict[str, Any]:
    """A term with CWD, which has no weights and adds only a mean over channels."""
    return {**dict(student=student, teacher=teacher or student, loss=dict(type='kd_det.CWDLoss')), **options}


#: A teacher that runs as mmdet's own, for tests that look inside it.
AS_LOADED = dict(fold=False, channels_last=False)


def distiller(
    student: dict[str, Any],
    teacher: dict[str, Any] | None,
    terms: dict[str, Any],
    checkpoint: str | None = None,
    seed: int | None = 0,
    init: bool = True,
    engine: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A built and initialised DistillDetector in training mode; ``engine`` are options of its teacher."""  # fmt: skip
    if seed is not None:
        torch.manual_seed(seed)
    model = MODELS.build(
        dict(
            type='kd_det.DistillDetector', student=student, distill=terms, **options,
            teacher=None if teacher is None else dict(config=teacher, checkpoint=checkpoint, **engine or {}),
        )
    )  # fmt: skip
    if init:
        model.init_weights()
    return model.train()


def total(losses: dict[str, Any]) -> torch.Tensor:
    """The sum that mmengine minimises."""
    return sum(sum(v) if isinstance(v, (list, tuple)) else v for k, v in losses.items() if 'loss' in k)
