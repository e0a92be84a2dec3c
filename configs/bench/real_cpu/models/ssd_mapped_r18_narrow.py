# The student of ssd_mapped_r18.py: an R18 of an eighth of its width, with levels as wide as the teacher's.
_base_ = './ssd_mapped_r18.py'
model = dict(backbone=dict(base_channels=8), neck=dict(in_channels=[16, 32, 64]))
