# FCOS R18 from scratch: the student of fcos_r50.py.
_base_ = './fcos_r50.py'
model = dict(backbone=dict(depth=18), neck=dict(in_channels=[64, 128, 256, 512]))
