# OFA-KD: classifiers on stages 2 to 4 of the backbone, on foreground RoIs, and the second stage itself; Faster R-CNN
# R101 -> R50, 1x, 8 GPUs x 2 images, no inheriting. Ours (student 37.4, teacher 39.8 mAP on COCO val2017): the paper
# classifies images. Source of the constants: arXiv 2310.19444; Hao840/OFAKD.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    './_base_/distill/ofa_two_stage.py',
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
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
