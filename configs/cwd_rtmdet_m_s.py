# CWD on normalised maps: RTMDet-M -> RTMDet-S, 300 epochs, the last 20 without distillation; 8 GPUs x 32 images.
# Published: 44.6 -> 45.7 mAP on COCO val2017 (teacher 49.1, as in mmdet). Source: mmyolo, configs/rtmdet/distillation.
_base_ = ['mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py', './_base_/distill/cwd_norm.py']
_base_.distill.cwd.schedule = dict(end=280)
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::rtmdet/rtmdet_m_8xb32-300e_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v3.0/rtmdet/rtmdet_m_8xb32-300e_coco/'
        'rtmdet_m_8xb32-300e_coco_20220719_112220-229f527c.pth',
    ),
    distill=_base_.distill,
)
custom_imports = dict(imports=['kd_det'], allow_failed_imports=False)
custom_hooks = _base_.custom_hooks + [  # beside RTMDet's own; for the same reason distill_runtime.py is no base
    dict(type='kd_det.TermScheduleHook'),
    dict(type='kd_det.StudentCheckpointHook'),
    dict(type='kd_det.PinMemoryHook'),
    dict(type='kd_det.TeacherCacheHook'),
    dict(type='kd_det.DataWaitHook'),
]
auto_scale_lr = dict(base_batch_size=256)
