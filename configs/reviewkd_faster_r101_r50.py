# ReviewKD: Faster R-CNN R101 -> R50, 1x, 8 GPUs x 2 images; P2 to P6, weight 1.
# Ours: mmdet's recipe and teacher (39.8), with the published weight.
# (Published recipes are detectron2's: 180 000 steps of 8 images in mdistiller.) Source: dvlab-research/ReviewKD; paper
# arXiv 2104.09044.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    './_base_/distill/reviewkd.py',
    './_base_/distill_runtime.py',
]
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r101_fpn_2x_coco/'
        'faster_rcnn_r101_fpn_2x_coco_bbox_mAP-0.398_20200504_210455-1d2dac9c.pth',
    ),
    distill=_base_.distill,
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
