# DIST on the second stage: Faster R-CNN R101 -> R50, 2x, 8 GPUs x 2 images; beta 1, gamma 1, weight 1, no inheriting.
# Ours: teacher R101 (39.8 mAP on COCO val2017). Settings as published for a Cascade Mask R-CNN X101 teacher, which gave
# 38.4 -> 40.4. Source: arXiv 2205.10536; hunto/MasKD, mmrazor/configs/distill/dist.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py',
    './_base_/distill/dist_two_stage.py',
    './_base_/distill_runtime.py',
]
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r101_fpn_2x_coco/'
        'faster_rcnn_r101_fpn_2x_coco_bbox_mAP-0.398_20200504_210455-1d2dac9c.pth',
    ),
    distill=_base_.distill,
)
