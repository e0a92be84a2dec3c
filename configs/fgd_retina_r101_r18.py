# A new student in three lines: RetinaNet R101 -> R18, else as its base.
# Ours: no published figure (teacher 38.9 mAP). Source of the constants: yzd-v/FGD.
_base_ = './fgd_retina_r101_r50.py'
backbone = dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18'))
model = dict(student=dict(backbone=backbone, neck=dict(in_channels=[64, 128, 256, 512])))
