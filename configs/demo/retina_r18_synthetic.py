# The demo's teacher: RetinaNet-R18 from scratch, with 64 channels in neck and head and square anchors from 16 px.
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/default_runtime.py',
    '../_base_/datasets/synthetic.py',
]

head_norm = dict(type='GN', num_groups=8)  # of neck and head; without it training from scratch is slow
model = dict(
    backbone=dict(depth=18, base_channels=32, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(
        in_channels=[32, 64, 128, 256], out_channels=64, num_outs=4, add_extra_convs='on_output', norm_cfg=head_norm
    ),
    bbox_head=dict(
        num_classes=6,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=head_norm,
        anchor_generator=dict(octave_base_scale=2, scales_per_octave=2, ratios=[1.0], strides=[8, 16, 32, 64]),
    ),
)

epochs = 16
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05), clip_grad=dict(max_norm=10.0)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
