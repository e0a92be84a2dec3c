# The student of fcos_r18.py: an R18 of an eighth of its width.
_base_ = './fcos_r18.py'
model = dict(backbone=dict(base_channels=8), neck=dict(in_channels=[8, 16, 32, 64]))
