# The teacher of the CPU run on bccd: RetinaNet-R18 from scratch, 64 channels in neck and head, images of 320 x 240 px.
# There a platelet is about 20 px wide, a red cell 50 and a white cell 100, none of them far from square: so are the
# anchors, of 16 to 181 px. `python tools/real_data.py` trains and measures all three configs of this folder.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/bccd_coco.py',
]

head_norm = dict(type='GN', num_groups=8)  # of neck and head; without it training from scratch is slow
model = dict(
    backbone=dict(depth=18, base_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(
        in_channels=[32, 64, 128, 256], out_channels=64, num_outs=4, add_extra_convs='on_output', norm_cfg=head_norm
    ),
    bbox_head=dict(
        num_classes=3,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=head_norm,
        anchor_generator=dict(octave_base_scale=2, scales_per_octave=2, ratios=[1.0], strides=[8, 16, 32, 64]),
    ),
)

image_scale = (320, 240)
train_pipeline = [
    dict(type='kd_det.LoadImageOnce'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=image_scale, keep_ratio=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
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
val_dataloader = dict(batch_size=8, dataset=dict(pipeline=test_pipeline), **few_workers)
test_dataloader = val_dataloader

epochs = 24
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05), clip_grad=dict(max_norm=10.0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=8)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(interval=epochs), logger=dict(interval=13))
