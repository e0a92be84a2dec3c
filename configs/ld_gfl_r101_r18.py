# LD: GFL R101 -> R18, else as its base.
# Published: 35.8 -> 37.5 mAP on COCO val2017 with all three parts, 36.5 with the positives' boxes alone (teacher 44.7,
# multi-scale 2x). Source: README and configs of the authors' repository, HikariTJU/LD.
_base_ = './ld_gfl_r101_r50.py'
backbone = dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18'))
model = dict(student=dict(backbone=backbone, neck=dict(in_channels=[64, 128, 256, 512])))
