# CrossKD: GFL R101 -> R50, 1x, 8 GPUs x 2 images.
# Published: 40.2 -> 43.7 mAP on COCO val2017 (teacher 44.7, multi-scale 2x; the authors measured 44.9). Source: README
# and configs of the authors' repository, jbwang1997/CrossKD; arXiv 2306.11369.
_base_ = ['mmdet::gfl/gfl_r50_fpn_1x_coco.py', './_base_/distill/crosskd_gfl.py', './_base_/distill_runtime.py']
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
