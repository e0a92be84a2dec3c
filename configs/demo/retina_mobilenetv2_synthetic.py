# The demo's student: the same detector on a quarter-width MobileNetV2. Trained by itself it is the baseline.
_base_ = './retina_r18_synthetic.py'

model = dict(
    backbone=dict(_delete_=True, type='MobileNetV2', widen_factor=0.25), neck=dict(in_channels=[8, 8, 24, 1280])
)
