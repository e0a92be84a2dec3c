# CrossKD: RetinaNet R101 -> R50, 2x, 8 GPUs x 2 images.
# Published: 37.4 -> 39.7 mAP on COCO val2017 (teacher 38.9). Source: README and configs of the authors' repository,
# jbwang1997/CrossKD; arXiv 2306.11369.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py', './_base_/distill/crosskd.py', './_base_/distill_runtime.py']
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
