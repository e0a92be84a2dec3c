# PKD: RetinaNet X101-64x4d -> R50, 2x, 8 GPUs x 2 images; P3 to P6, weight 10, no inheriting, no gradient clipping.
# Published: 37.4 -> 40.8 mAP on COCO val2017 (teacher 41.0). Source: mmrazor 1.0, configs/distill/mmdet/pkd; paper
# arXiv 2207.02039.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py', './_base_/distill/pkd.py', './_base_/distill_runtime.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_x101_64x4d_fpn_1x_coco/'
        'retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth',
    ),
    distill=_base_.distill,
)
