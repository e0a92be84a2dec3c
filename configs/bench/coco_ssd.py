# SSD300 VGG16 (25.5 mAP) to SSD300 MobileNetV2 on COCO at the published schedule: the MultiBox recipe of Chen et al.
# For one GPU of 24 GB and COCO in data/coco: 120 epochs of 64 images a step; the teacher is mmdet's own.
# Published weights only; to tune them too, add tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.1).
bench = dict(
    title='SSD300 VGG16 to MobileNetV2, COCO',
    teacher='mmdet::ssd/ssd300_coco.py',
    teacher_checkpoint='https://download.openmmlab.com/mmdetection/v2.0/ssd/ssd300_coco/'
    'ssd300_coco_20210803_015428-d231a06e.pth',
    student='../plain/ssd300_mobilenetv2_coco.py',
    methods=dict(
        ssdkd={}, cwd={}, fgd={}, fitnet={}, mgd={}, pkd={},
    ),
    seeds=[0, 1, 2],
    options={'train_dataloader.batch_size': 64, 'optim_wrapper.clip_grad': dict(max_norm=35, norm_type=2)},
)  # fmt: skip
