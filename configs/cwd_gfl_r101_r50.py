# CWD on the class scores of all five levels: GFL R101 -> R50, 1x, 8 GPUs x 2 images; tau 1, weight 5, no inheriting.
# Published: 40.2 -> 41.9 mAP on COCO val2017 (teacher 44.7). Source: mmrazor 0.x, configs/distill/cwd. (The config of
# that name in mmrazor 1.0 taps the FPN instead, with weight 10.)
_base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py', './_base_/distill/cwd.py', './_base_/distill_runtime.py']
_base_.distill.cwd.update(student='bbox_head[0]', teacher='bbox_head[0]', weight=5.0)
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/'
        'gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth',
    ),
    distill=_base_.distill,
)
