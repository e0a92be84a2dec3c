# CWD: Faster R-CNN R101 -> R50, 1x, 8 GPUs x 2 images; all five levels, tau 1, weight 10, no inheriting.
# Published: settings only (student 37.4, teacher 39.8, its 2x checkpoint), no figure for the distilled student.
# Source: mmrazor 1.0, configs/distill/mmdet/cwd.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', './_base_/distill/cwd.py', './_base_/distill_runtime.py']
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
