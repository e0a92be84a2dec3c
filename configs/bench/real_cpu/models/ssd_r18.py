# SSD on an R18 of half its width: four levels, anchors of 12 to 140 px.
_base_ = '../../real/models/ssd_r18.py'
widths = (64, 128, 256, 128)
model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=widths[:3], out_channels=widths, level_strides=(2,), level_paddings=(1,)),
    bbox_head=dict(
        in_channels=widths,
        anchor_generator=dict(
            input_size=192,
            min_sizes=[12, 24, 48, 96],
            max_sizes=[24, 48, 96, 140],
            strides=[8, 16, 32, 64],
            ratios=[[2], [2], [2], [2]],
        ),
    ),
)
