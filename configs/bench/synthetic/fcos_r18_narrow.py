# The FCOS student of the benchmark on synthetic shapes: the same detector on an R18 of an eighth of its width.
_base_ = ['./fcos_r18.py']

model = dict(backbone=dict(base_channels=8), neck=dict(in_channels=[8, 16, 32, 64]))

epochs = 6
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
