# RetinaNet on a MobileNetV2 of a quarter of its width: the light student of retina_r18.py.
_base_ = './retina_r18.py'
model = dict(
    backbone=dict(_delete_=True, type='MobileNetV2', widen_factor=0.25), neck=dict(in_channels=[8, 8, 24, 1280])
)
