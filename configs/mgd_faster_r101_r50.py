# MGD: Faster R-CNN R101 -> R50, 2x, 8 GPUs x 2 images.
# Ours: teacher R101 (39.8) and, since it has the student's heads, inheriting. Settings as published for a Cascade Mask
# R-CNN X101-DCN teacher, which gave 38.4 -> 42.1 mAP on COCO val2017. Source: authors' repository, yzd-v/MGD.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py',
    './_base_/distill/mgd_two_stage.py',
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
    inherit=['neck', 'rpn_head', 'roi_head'],
    distill=_base_.distill,
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
