# The student of the CPU run on bccd: the same detector on a quarter-width MobileNetV2, trained by itself.
_base_ = './retina_r18_bccd_cpu.py'

model = dict(
    backbone=dict(_delete_=True, type='MobileNetV2', widen_factor=0.25), neck=dict(in_channels=[8, 8, 24, 1280])
)
