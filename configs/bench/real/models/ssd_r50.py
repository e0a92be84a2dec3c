# SSD from scratch for a few hundred photographs: SSD's extra levels and MultiBox head behind stages 2 to 4 of an R50,
# five levels, anchors of 20 to 280 px. Both networks see images padded alike, so that each prior has its twin.
norm_cfg = dict(type='BN')
widths = (512, 1024, 2048, 256, 256)
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
        init_cfg=None,
    ),
    neck=dict(
        type='SSDNeck',
        in_channels=widths[:3],
        out_channels=widths,
        level_strides=(2, 2),
        level_paddings=(1, 1),
        l2_norm_scale=None,
        norm_cfg=norm_cfg,
    ),
    bbox_head=dict(
        type='SSDHead',
        num_classes=3,
        in_channels=widths,
        anchor_generator=dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            input_size=320,
            min_sizes=[20, 40, 80, 140, 200],
            max_sizes=[40, 80, 140, 200, 280],
            strides=[8, 16, 32, 64, 128],
            ratios=[[2], [2, 3], [2, 3], [2], [2]],
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=[0.1, 0.1, 0.2, 0.2]),
    ),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.0, gt_max_assign_all=False
        ),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
    ),
    test_cfg=dict(
        nms_pre=1000, nms=dict(type='nms', iou_threshold=0.45), min_bbox_size=0, score_thr=0.02, max_per_img=100
    ),
)
