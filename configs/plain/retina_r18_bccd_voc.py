# RetinaNet R18 on bccd: the student of fgd_retina_r50_r18_bccd_voc.py, trained without a teacher.
_base_ = './retina_r50_bccd_voc.py'
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
