# FGD on bccd (COCO json and COCO mAP): RetinaNet R50 -> R18, one GPU, 48 epochs.
# Ours: no published figure. Source of the constants: the authors' RetinaNet on COCO, yzd-v/FGD.
# First the teacher:  python tools/train.py configs/plain/retina_r50_bccd_coco.py
# To compare:         python tools/train.py configs/plain/retina_r18_bccd_coco.py
_base_ = ['./plain/retina_r18_bccd_coco.py', './_base_/distill/fgd.py', './_base_/distill_runtime.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='{{ fileDirname }}/plain/retina_r50_bccd_coco.py',
        checkpoint='work_dirs/retina_r50_bccd_coco/epoch_48.pth',
    ),
    inherit=['neck', 'bbox_head'],
    distill=_base_.distill,
)
