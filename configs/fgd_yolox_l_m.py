# FGD: YOLOX-L -> YOLOX-M, 300 epochs, 8 GPUs x 8 images.
# Published: 45.9 -> 46.6 mAP on COCO val2017 (teacher 49.4). Source: authors' repository, yzd-v/FGD, branch
# yolox, where the loss is also divided by the factor of the multi-scale training; here it is not.
_base_ = ['mmdet::yolox/yolox_m_8xb8-300e_coco.py', './_base_/distill/fgd_yolox.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::yolox/yolox_l_8xb8-300e_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/yolox/yolox_l_8x8_300e_coco/'
        'yolox_l_8x8_300e_coco_20211126_140236-d3bd2b23.pth',
    ),
    distill=_base_.distill,
)
custom_imports = dict(imports=['kd_det'], allow_failed_imports=False)
custom_hooks = _base_.custom_hooks + [  # beside YOLOX's own; for the same reason distill_runtime.py is no base
    dict(type='kd_det.TermScheduleHook'),
    dict(type='kd_det.StudentCheckpointHook'),
    dict(type='kd_det.PinMemoryHook'),
    dict(type='kd_det.TeacherCacheHook'),
    dict(type='kd_det.DataWaitHook'),
]
