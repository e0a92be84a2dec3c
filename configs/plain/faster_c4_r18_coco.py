# Faster R-CNN R18 with the C4 head: the student of sdd_faster_c4_r50_r18.py, trained without a teacher.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py'
weights = dict(type='Pretrained', checkpoint='torchvision://resnet18')
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(depth=18, style='pytorch', init_cfg=weights),
    rpn_head=dict(in_channels=256, feat_channels=256),
    roi_head=dict(
        shared_head=dict(depth=18, style='pytorch', init_cfg=weights),
        bbox_roi_extractor=dict(out_channels=256),
        bbox_head=dict(in_channels=512),
    ),
)
