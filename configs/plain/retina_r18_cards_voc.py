# RetinaNet R18 on cards: the student of fgd_retina_r50_r18_cards_voc.py, trained without a teacher.
_base_ = './retina_r50_cards_voc.py'
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
