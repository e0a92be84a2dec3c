# FGD on the encoder's maps: two-stage Deformable DETR R50 -> R18, 50 epochs, 16 GPUs x 2 images, AdamW 2e-4.
# Ours: no published figure (teacher 47.0 mAP). Source of the constants: DETRDistill's runs of FGD.
_base_ = [
    'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
    './_base_/distill/fgd_encoder.py',
    './_base_/distill_runtime.py',
]
backbone = dict(_base_.model.backbone, depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'))
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=dict(_base_.model, backbone=backbone, neck=dict(_base_.model.neck, in_channels=[128, 256, 512])),
    teacher=dict(
        config='mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v3.0/deformable_detr/'
        'deformable-detr-refine-twostage_r50_16xb2-50e_coco/'
        'deformable-detr-refine-twostage_r50_16xb2-50e_coco_20221021_184714-acc8a5ff.pth',
    ),
    distill=_base_.distill,
)
