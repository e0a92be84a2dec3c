# SSD300 with a MobileNetV2: the student of ssdkd_ssd300_vgg16_mobilenetv2.py, trained without a teacher.
# Maps of 38, 19, 10, 5, 3 and 1 cells a side and mmdet's SSD300 anchors: each prior has its twin in SSD300 VGG16.
_base_ = 'mmdet::ssd/ssd300_coco.py'
norm_cfg = dict(type='BN')
model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),  # as the backbone was pre-trained; VGG16 has std 1
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(2, 4, 7),  # strides 8, 16 and 32
        norm_cfg=norm_cfg,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2'),
    ),
    neck=dict(
        in_channels=(32, 96, 1280),
        out_channels=(32, 96, 1280, 256, 256, 256),
        level_strides=(2, 2, 1),
        level_paddings=(1, 1, 0),
        l2_norm_scale=None,
        use_depthwise=True,
        norm_cfg=norm_cfg,
        act_cfg=dict(type='ReLU6'),
    ),
    bbox_head=dict(
        in_channels=(32, 96, 1280, 256, 256, 256), use_depthwise=True, norm_cfg=norm_cfg, act_cfg=dict(type='ReLU6')
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.005, weight_decay=4e-5))  # mmdet's SSDLite recipe, for 64 images
