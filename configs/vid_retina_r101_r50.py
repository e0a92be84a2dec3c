# VID: RetinaNet R101 -> R50, 2x, 8 GPUs x 2 images; P3 to P7, weight 1.
# Ours: no published figure for a detector (teacher 38.9). Source of the constants: HobbitLong/RepDistiller, for
# classification; paper arXiv 1904.05835.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py', './_base_/distill/vid.py', './_base_/distill_runtime.py']
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
