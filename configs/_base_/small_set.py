# Schedule for a few hundred images on one GPU: 48 epochs of 8 images a step, about half an hour.
_base_ = 'mmdet::_base_/default_runtime.py'
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=48, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=200),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=48, milestones=[36, 44], gamma=0.1),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.005, momentum=0.9, weight_decay=0.0001),  # 0.01 for 16 images a step
    clip_grad=dict(max_norm=35, norm_type=2),
)
auto_scale_lr = dict(enable=False, base_batch_size=8)
default_hooks = dict(checkpoint=dict(interval=4, max_keep_ckpts=1, save_best='auto'))
