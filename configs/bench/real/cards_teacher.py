# Data and schedule of the teachers on cards: images of 480 x 360 px, where a card is about 90 x 120 px and its rank
# legible. From scratch: no weights are downloaded; hence the scale jitter and the many epochs.
_base_ = ['../../_base_/datasets/cards_coco.py', 'mmdet::_base_/default_runtime.py']

image_scale = (480, 360)
train_pipeline = [
    dict(type='kd_det.LoadImageOnce'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=image_scale, ratio_range=(0.75, 1.25), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5, direction='diagonal'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='kd_det.LoadImageOnce'),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),  # after Resize: the metric compares in the original image
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# two workers: several runs share the cores, and each worker keeps the decoded images
train_dataloader = dict(num_workers=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

epochs = 144
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05), clip_grad=dict(max_norm=10.0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=epochs)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
