# RetinaNet on a MobileNetV2 from scratch: the light student of retina_r50.py. Its stages end at strides 4 to 32.
_base_ = './retina_r50.py'
model = dict(
    backbone=dict(_delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 7)),
    neck=dict(in_channels=[24, 32, 96, 1280]),
)
