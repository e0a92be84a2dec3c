# DKD on the second stage: Faster R-CNN R101 -> R50, 8 GPUs x 1 image, learning rate 0.01; alpha 1, beta 0.25, T 1.
# Published: settings only (student 37.4, teacher 39.8 mAP on COCO val2017 are mmdet's). Source: arXiv 2203.08679,
# megvii-research/mdistiller: 180k steps of 8 images, which are 12 epochs. Its networks are those of detectron2, with
# images scaled to 640 to 800 pixels and a teacher trained longer; mmdet's are trained at 800.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    './_base_/distill/dkd_two_stage.py',
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
train_dataloader = dict(batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.01))
auto_scale_lr = dict(base_batch_size=8)
