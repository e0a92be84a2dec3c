# What every distillation config needs besides a model. A list is replaced, not extended, by a child.
custom_imports = dict(imports=['kd_det'], allow_failed_imports=False)
custom_hooks = [
    dict(type='kd_det.TermScheduleHook'),  # ramps and stops of single terms
    dict(type='kd_det.StudentCheckpointHook'),  # student_*.pth for plain mmdet beside each checkpoint
    dict(type='kd_det.PinMemoryHook'),  # batches that a GPU copies faster
    dict(type='kd_det.TeacherCacheHook'),  # what a teacher's cache replayed, if there is one
    dict(type='kd_det.DataWaitHook'),  # a warning when steps wait for data
]
