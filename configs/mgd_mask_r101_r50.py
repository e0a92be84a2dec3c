# MGD: Mask R-CNN R101 -> R50, 2x, 8 GPUs x 2 images.
# Ours: teacher R101 (40.8 box, 36.6 mask mAP) and, since it has the student's heads, inheriting. Settings as published
# for a Cascade Mask R-CNN X101-DCN teacher, which gave 35.4 -> 38.1 mask mAP on COCO val2017. Source: authors'
# repository, yzd-v/MGD.
_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py',
    './_base_/distill/mgd_two_stage.py',
    './_base_/distill_runtime.py',
]
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::mask_rcnn/mask-rcnn_r101_fpn_2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/mask_rcnn_r101_fpn_2x_coco/'
        'mask_rcnn_r101_fpn_2x_coco_bbox_mAP-0.408__segm_mAP-0.366_20200505_071027-14b391c7.pth',
    ),
    inherit=['neck', 'rpn_head', 'roi_head'],
    distill=_base_.distill,
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
