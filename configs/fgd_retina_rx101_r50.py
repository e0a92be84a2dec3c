# FGD: RetinaNet X101-64x4d -> R50, 2x, 8 GPUs x 2 images.
# Published: 37.4 -> 40.7 mAP on COCO val2017 (teacher 41.0, its 1x checkpoint). Source: arXiv 2111.11837, table 3, with
# inheriting; settings of the authors' repository, yzd-v/FGD.
_base_ = './fgd_retina_r101_r50.py'
model = dict(
    teacher=dict(
        config='mmdet::retinanet/retinanet_x101-64x4d_fpn_1x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_x101_64x4d_fpn_1x_coco/'
        'retinanet_x101_64x4d_fpn_1x_coco_20200130-366f5af1.pth',
    )
)
