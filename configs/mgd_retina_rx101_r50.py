# MGD: RetinaNet X101-64x4d -> R50, 2x, 8 GPUs x 2 images.
# Published: 37.4 -> 41.0 mAP on COCO val2017 (teacher 41.6: its multi-scale 3x checkpoint). Source: README and
# config of the authors' repository, yzd-v/MGD; paper arXiv 2205.01529.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_2x_coco.py', './_base_/distill/mgd.py', './_base_/distill_runtime.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::retinanet/retinanet_x101-64x4d_fpn_ms-640-800-3x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/'
        'retinanet_x101_64x4d_fpn_mstrain_3x_coco/'
        'retinanet_x101_64x4d_fpn_mstrain_3x_coco_20210719_051838-022c2187.pth',
    ),
    inherit=['neck', 'bbox_head'],
    distill=_base_.distill,
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
