# Faster R-CNN on an R18 of half its width: 64 channels in the neck, five levels from stride 4, anchors of 8 to 192 px,
# 64 RoIs an image, 128 channels in the second stage.
_base_ = '../../real/models/faster_r18.py'
model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[2, 3], ratios=[1.0])),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1),
            out_channels=64,
            finest_scale=12,  # RoIs of 24, 48 and 96 px change the level, as those of 112, 224 and 448 px on COCO
        ),
        bbox_head=dict(in_channels=64, fc_out_channels=128),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=400, max_per_img=150),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=400, max_per_img=150)),
)
