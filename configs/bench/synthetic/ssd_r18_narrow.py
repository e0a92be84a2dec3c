# The SSD student of the benchmark on synthetic shapes: the same detector on an R18 of an eighth of its width.
_base_ = ['./ssd_r18.py']

widths = (16, 32, 64, 32)
model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=widths[:3], out_channels=widths),
    bbox_head=dict(in_channels=widths),
)

epochs = 10  # it learns more slowly than detectors with a pyramid
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
