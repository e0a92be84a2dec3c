# The light student of the benchmark on synthetic shapes: RetinaNet on a quarter-width MobileNetV2, as in the demo.
_base_ = ['./retina_r18.py']

model = dict(
    backbone=dict(_delete_=True, type='MobileNetV2', widen_factor=0.25), neck=dict(in_channels=[8, 8, 24, 1280])
)

epochs = 6
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
