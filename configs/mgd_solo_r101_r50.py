# MGD: SOLO R101 -> R50, 1x, 8 GPUs x 2 images; P2 to P5.
# Published: 33.1 -> 36.2 mask mAP on COCO val2017. Source: README and config of the authors' repository, yzd-v/MGD.
# There is no public teacher in mmdet's zoo: train one, or put your own checkpoint below.
#   tools/dist_train.sh configs/plain/solo_r101_3x_coco.py 8
_base_ = ['mmdet::solo/solo_r50_fpn_1x_coco.py', './_base_/distill/mgd.py', './_base_/distill_runtime.py']
_base_.distill.mgd.update(student='neck[0:4]', teacher='neck[0:4]')
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/plain/solo_r101_3x_coco.py', checkpoint='work_dirs/solo_r101_3x_coco/epoch_36.pth'
    ),
    inherit=['neck', 'mask_head'],
    distill=_base_.distill,
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
