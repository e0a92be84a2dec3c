# FCOS: backbone and neck of retina_r18.py; ranges for objects of 192 px and less.
_base_ = '../../real/models/fcos_r18.py'
model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, regress_ranges=((-1, 16), (16, 32), (32, 64), (64, 1e8))),
)
