# Data and schedule of the teachers on cards for a CPU: images of 192 x 144 px, where a card is about 38 x 50 px.
_base_ = '../real/cards_teacher.py'

image_scale = (192, 144)
train_pipeline = [
    dict(type='kd_det.LoadImageOnce'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=image_scale, ratio_range=(0.8, 1.2), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5, direction='diagonal'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='kd_det.LoadImageOnce'),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),  # after Resize: the metric compares in the original image
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
few_workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline), **few_workers)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline), **few_workers)
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=2e-3))

epochs = 36
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
