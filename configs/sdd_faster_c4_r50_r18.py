# SDD: Faster R-CNN with the C4 head R50 -> R18, 1x, 8 GPUs x 2 images, no inheriting.
# Ours: no published figure for a detector of this kind (teacher 35.6 mAP on COCO val2017). Source of the constants:
# arXiv 2403.13512; see the fragment for the weight.
# To compare:  python tools/train.py configs/plain/faster_c4_r18_coco.py
_base_ = ['./plain/faster_c4_r18_coco.py', './_base_/distill/sdd.py', './_base_/distill_runtime.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_caffe_c4_1x_coco/'
        'faster_rcnn_r50_caffe_c4_1x_coco_20220316_150152-3f885b85.pth',
    ),
    distill=_base_.distill,
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
