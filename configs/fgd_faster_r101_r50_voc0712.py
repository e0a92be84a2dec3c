# FGD on PASCAL VOC 07+12: Faster R-CNN R101 -> R50, mmdet's VOC recipe (4 epochs of thrice the set).
# Ours: no published figure; the constants are those for COCO. Source: yzd-v/FGD.
# There is no public teacher: train one, or put your own checkpoint below.
#   tools/dist_train.sh configs/plain/faster_r101_voc0712.py 8
_base_ = [
    'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py',
    './_base_/distill/fgd_two_stage.py',
    './_base_/distill_runtime.py',
]
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/plain/faster_r101_voc0712.py', checkpoint='work_dirs/faster_r101_voc0712/epoch_4.pth'
    ),
    inherit=['neck', 'rpn_head', 'roi_head'],
    distill=_base_.distill,
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
