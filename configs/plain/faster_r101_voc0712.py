# Teacher of fgd_faster_r101_r50_voc0712.py: mmdet's VOC recipe with a ResNet-101.
_base_ = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
