# GFL: backbone and neck of retina_r18.py; eight strides from a centre to a side are enough.
_base_ = '../../real/models/gfl_r18.py'
model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, reg_max=8),
)
