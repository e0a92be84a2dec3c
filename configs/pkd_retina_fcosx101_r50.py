# PKD from another family: FCOS X101-64x4d -> RetinaNet R50, 1x, 8 GPUs x 2 images; P3 to P6, weight 10, no clipping.
# Published: 36.5 -> 40.3 mAP on COCO val2017 (teacher 42.6). Source: mmrazor 1.0, configs/distill/mmdet/pkd; paper
# arXiv 2207.02039.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', './_base_/distill/pkd.py', './_base_/distill_runtime.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::fcos/fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/fcos/'
        'fcos_x101_64x4d_fpn_gn-head_mstrain_640-800_2x_coco/'
        'fcos_x101_64x4d_fpn_gn-head_mstrain_640-800_2x_coco-ede514a8.pth',
    ),
    distill=_base_.distill,
)
