# The teacher of the benchmark on synthetic shapes: RetinaNet-R18 (half width) from scratch, images of 96 px.
_base_ = ['../../demo/retina_r18_synthetic.py']

image_size = 96
pixels = (image_size, image_size)
train_pipeline = [
    dict(type='kd_det.LoadImageOnce'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=pixels, keep_ratio=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=pixels, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=16, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

epochs = 20
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
