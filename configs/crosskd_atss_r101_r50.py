# CrossKD: ATSS R101 -> R50, 1x, 8 GPUs x 2 images.
# Published: 39.4 -> 41.8 mAP on COCO val2017 (teacher 41.5). Source: README and configs of the authors' repository,
# jbwang1997/CrossKD; arXiv 2306.11369.
_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py', './_base_/distill/crosskd_atss.py', './_base_/distill_runtime.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::atss/atss_r101_fpn_1x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/atss/atss_r101_fpn_1x_coco/'
        'atss_r101_fpn_1x_20200825-dfcadd6f.pth',
    ),
    distill=_base_.distill,
)
