# The student of ssd_r18.py: an R18 of an eighth of its width.
_base_ = './ssd_r18.py'
widths = (16, 32, 64, 32)
model = dict(
    backbone=dict(base_channels=8),
    neck=dict(in_channels=widths[:3], out_channels=widths),
    bbox_head=dict(in_channels=widths),
)
