# The teacher of the CPU benchmark on cards: bccd's (its anchors of 16 to 181 px suit cards as well) on images of
# 240 x 180 px, where a card is about 60 px wide. Turned by 180 degrees or not at all: a mirrored rank is no rank.
_base_ = ['../../small/retina_r18_bccd_cpu.py']

data_root = 'data/cards/'
metainfo = dict(classes=('nine', 'ten', 'jack', 'queen', 'king', 'ace'))
model = dict(bbox_head=dict(num_classes=6))

image_scale = (240, 180)
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
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

epochs = 36
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
