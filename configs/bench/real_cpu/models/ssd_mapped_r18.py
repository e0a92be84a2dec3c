# SSD on an R18 of half its width, with levels that a channel mapper brings to one width: 64 channels each.
_base_ = './ssd_r18.py'
model = dict(
    neck=dict(
        _delete_=True,
        type='ChannelMapper',
        in_channels=[64, 128, 256],
        out_channels=64,
        kernel_size=3,
        num_outs=4,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(in_channels=(64, 64, 64, 64)),
)
