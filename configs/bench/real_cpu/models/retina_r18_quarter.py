# RetinaNet on an R18 of a quarter of its width: a larger student of Faster R-CNN.
_base_ = './retina_r18.py'
model = dict(backbone=dict(base_channels=16), neck=dict(in_channels=[16, 32, 64, 128]))
