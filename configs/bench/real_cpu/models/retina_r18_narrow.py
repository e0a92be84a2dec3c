# RetinaNet on an R18 of an eighth of its width: a student of Faster R-CNN.
_base_ = './retina_r18.py'
model = dict(backbone=dict(base_channels=8), neck=dict(in_channels=[8, 16, 32, 64]))
