# Quality focal loss against the teacher's scores: RetinaNet R101 -> R50, 1x, 8 GPUs x 2 images, no inheriting.
# Ours (student 36.5, teacher 38.9 mAP on COCO val2017): CrossKD's loss with the student's own head. Source of the
# constants: arXiv 2306.11369; jbwang1997/CrossKD.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    './_base_/distill/qfl.py',
    './_base_/distill_runtime.py',
]
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/'
        'retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth',
    ),
    distill=_base_.distill,
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
