# SSD on an R18 from scratch: the student of ssd_r50.py.
_base_ = './ssd_r50.py'
widths = (128, 256, 512, 256, 256)
model = dict(
    backbone=dict(depth=18),
    neck=dict(in_channels=widths[:3], out_channels=widths),
    bbox_head=dict(in_channels=widths),
)
