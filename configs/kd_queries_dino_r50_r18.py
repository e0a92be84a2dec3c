# Query distillation: DINO R50 -> R18, 4 scales, 12 epochs, 8 GPUs x 2 images, AdamW 1e-4.
# Ours: no published figure (teacher 49.0 mAP). Source of the weights: jbwang1997/CrossKD (Deformable
# DETR), but beta 1.
_base_ = [
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    './_base_/distill/kd_queries.py',
    './_base_/distill_runtime.py',
]
backbone = dict(_base_.model.backbone, depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'))
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=dict(_base_.model, backbone=backbone, neck=dict(_base_.model.neck, in_channels=[128, 256, 512])),
    teacher=dict(
        config='mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v3.0/dino/'
        'dino-4scale_r50_8xb2-12e_coco/'
        'dino-4scale_r50_8xb2-12e_coco_20221202_182705-55b2bba2.pth',
    ),
    distill=_base_.distill,
)
