# FGD: RetinaNet R101 -> R50, 2x, 8 GPUs x 2 images.
# Published: 37.4 -> 39.7 mAP on COCO val2017 (teacher 38.9). Source: arXiv 2111.11837, table 2, with inheriting;
# settings of the authors' repository, yzd-v/FGD.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py', './_base_/distill/fgd.py', './_base_/distill_runtime.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/'
        'retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth',
    ),
    inherit=['neck', 'bbox_head'],
    distill=_base_.distill,
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
