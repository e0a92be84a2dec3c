# PKD: Faster R-CNN R101 -> R50, 2x, 8 GPUs x 2 images; P2 to P5, weight 6, no inheriting, no gradient clipping.
# Published: 38.4 -> 40.3 mAP on COCO val2017 (teacher 39.8). Source: mmrazor 1.0, configs/distill/mmdet/pkd; paper
# arXiv 2207.02039.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py',
    './_base_/distill/pkd_two_stage.py',
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
