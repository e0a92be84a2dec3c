# MultiBox distillation: SSD300 VGG16 -> SSD300 MobileNetV2 with the same anchors, 120 epochs, 8 GPUs x 8 images.
# Ours: no published figure for this pair (teacher 25.5 mAP on COCO val2017). Source of the constants: Chen et al.,
# NIPS 2017 (background weight 1.5, T 1) and the public SSD recipe 0.3 soft + 0.7 conf + 0.5 l2 + loc.
_base_ = ['./plain/ssd300_mobilenetv2_coco.py', './_base_/distill/ssdkd.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::ssd/ssd300_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/ssd/ssd300_coco/'
        'ssd300_coco_20210803_015428-d231a06e.pth',
    ),
    distill=_base_.distill,
    task_weights=_base_.task_weights,
)
custom_imports = dict(imports=['kd_det'], allow_failed_imports=False)
custom_hooks = _base_.custom_hooks + [  # SSD's base has hooks of its own, so _base_/distill_runtime.py cannot be a base
    dict(type='kd_det.TermScheduleHook'),
    dict(type='kd_det.StudentCheckpointHook'),
    dict(type='kd_det.PinMemoryHook'),
    dict(type='kd_det.TeacherCacheHook'),
    dict(type='kd_det.DataWaitHook'),
]
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
