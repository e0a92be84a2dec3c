# SOLO R101, 3x: the teacher of mgd_solo_r101_r50.py and fgd_solo_r101_r50.py, which mmdet's zoo lacks.
_base_ = 'mmdet::solo/solo_r50_fpn_3x_coco.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101')))
