"""Tiny detectors of the families that ``tiny_models`` lacks: with masks, and with PAFPN necks."""

from __future__ import annotations

from typing import Any

from tiny_models import IMAGENET, TEST, _extractor, backbone, faster, fpn, preprocessor


def mask_rcnn(classes: int = 3, channels: int = 16, base: int = 8, **parts: Any) -> dict[str, Any]:
    """Faster R-CNN with a mask head of one convolution."""
    cfg = faster(classes, channels, base, type='MaskRCNN', data_preprocessor=preprocessor(pad_mask=True))
    cfg['roi_head'].update(
        mask_roi_extractor=_extractor(channels),
        mask_head=dict(
            type='FCNMaskHead', num_convs=1, roi_feat_size=3, in_channels=channels, conv_out_channels=channels,
            num_classes=classes, loss_mask=dict(type='CrossEntropyLoss', use_mask=True),
        ),
    )  # fmt: skip
    cfg['train_cfg'] = dict(cfg['train_cfg'], rcnn=dict(cfg['train_cfg']['rcnn'], mask_size=6))
    cfg['test_cfg'] = dict(cfg['test_cfg'], rcnn=dict(cfg['test_cfg']['rcnn'], mask_thr_binary=0.5))
    return {**cfg, **parts}


def solo(classes: int = 3, channels: int = 16, base: int = 8, **parts: Any) -> dict[str, Any]:
    """SOLO on three levels; the head halves the first one and doubles the last one."""
    cfg = dict(
        type='SOLO', data_preprocessor=preprocessor(pad_mask=True), backbone=backbone(base),
        neck=fpn(base, channels),
        mask_head=dict(
            type='SOLOHead', num_classes=classes, in_channels=channels, stacked_convs=1, feat_channels=channels,
            strides=[16, 16, 16], scale_ranges=((1, 24), (16, 48), (32, 512)), pos_scale=0.2, num_grids=[6, 5, 4],
            cls_down_index=0, loss_mask=dict(type='DiceLoss', use_sigmoid=True, loss_weight=3.0),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
            norm_cfg=dict(type='GN', num_groups=4),
        ),
        test_cfg=dict(
            nms_pre=20, score_thr=0.0, mask_thr=0.5, filter_thr=0.05, kernel='gaussian', sigma=2.0, max_per_img=10
        ),
    )  # fmt: skip
    return {**cfg, **parts}


def yolox(classes: int = 3, channels: int = 16, base: int = 16, **parts: Any) -> dict[str, Any]:
    """YOLOX with stages of ``base``, 2 and 4 times ``base`` channels at the neck; ``base`` 16, 32, …

    Where YOLOX has batch norm and pixels as they are, this has group norm and normalised pixels, without which the
    maps of random weights explode.
    """
    norm_cfg = dict(type='GN', num_groups=4)
    cfg = dict(
        type='YOLOX', data_preprocessor=preprocessor(),
        backbone=dict(
            type='CSPDarknet', deepen_factor=0.2, widen_factor=base / 256, out_indices=(2, 3, 4), norm_cfg=norm_cfg
        ),
        neck=dict(
            type='YOLOXPAFPN', in_channels=[base, 2 * base, 4 * base], out_channels=channels, num_csp_blocks=1,
            norm_cfg=norm_cfg,
        ),
        bbox_head=dict(
            type='YOLOXHead', num_classes=classes, in_channels=channels, feat_channels=channels, stacked_convs=1
        ),
        train_cfg=dict(assigner=dict(type='SimOTAAssigner', center_radius=2.5)),
        test_cfg=dict(score_thr=0.0, nms=dict(type='nms', iou_threshold=0.65), max_per_img=10),
    )  # fmt: skip
    return {**cfg, **parts}


def rtmdet(classes: int = 3, channels: int = 16, base: int = 16, **parts: Any) -> dict[str, Any]:
    """RTMDet-S's head and layers with in-place SiLU, with stages of ``base``, 2 and 4 times ``base`` channels."""
    layers = dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='SiLU', inplace=True))
    cfg = dict(
        type='RTMDet', data_preprocessor=dict(type='DetDataPreprocessor', **{**IMAGENET, 'bgr_to_rgb': False}),
        backbone=dict(
            type='CSPNeXt', arch='P5', expand_ratio=0.5, deepen_factor=0.2, widen_factor=base / 256,
            channel_attention=True, **layers,
        ),
        neck=dict(
            type='CSPNeXtPAFPN', in_channels=[base, 2 * base, 4 * base], out_channels=channels, num_csp_blocks=1,
            expand_ratio=0.5, **layers,
        ),
        bbox_head=dict(
            type='RTMDetSepBNHead', num_classes=classes, in_channels=channels, feat_channels=channels, stacked_convs=1,
            share_conv=True, exp_on_reg=False, with_objectness=False, pred_kernel_size=1,
            anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
            bbox_coder=dict(type='DistancePointBBoxCoder'),
            loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
            loss_bbox=dict(type='GIoULoss', loss_weight=2.0), **layers,
        ),
        train_cfg=dict(assigner=dict(type='DynamicSoftLabelAssigner', topk=5), allowed_border=-1, pos_weight=-1),
        test_cfg=TEST,
    )  # fmt: skip
    return {**cfg, **parts}
