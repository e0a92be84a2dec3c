# ReviewKD: RetinaNet R101 -> R50, 1x, 8 GPUs x 2 images; P3 to P7, weight 1.
# Ours: mmdet's recipe and teacher (38.9), with the published weight.
# (Published recipes are detectron2's: 180 000 steps of 8 images in mdistiller.) Source: dvlab-research/ReviewKD; paper
# arXiv 2104.09044.
_base_ = [
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    './_base_/distill/reviewkd.py',
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
