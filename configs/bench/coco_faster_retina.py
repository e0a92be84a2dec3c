# Faster R-CNN R101 (2x, 39.8 mAP) to RetinaNet R50 on COCO, 1x: two families, features only, P3 to P5.
# For one GPU of 24 GB and COCO in data/coco: 12 epochs of 16 images a step; the teacher is mmdet's own.
# Published weights only; to tune them too, add tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.1).
bench = dict(
    title='Faster R-CNN R101 to RetinaNet R50, COCO',
    teacher='mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py',
    teacher_checkpoint='https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r101_fpn_2x_coco/'
    'faster_rcnn_r101_fpn_2x_coco_bbox_mAP-0.398_20200504_210455-1d2dac9c.pth',
    student='mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    methods={
        name: dict(change=dict(student='neck[0:3]', teacher='neck[1:4]'))
        for name in ('at', 'cwd', 'fgd', 'fitnet', 'mgd', 'pkd', 'reviewkd')
    }
    | dict(pkd_by_size=dict(fragment='pkd')),  # the four finest levels of each, which hold objects of one size
    seeds=[0, 1, 2],
    options={
        'train_dataloader.batch_size': 2,
        'optim_wrapper.accumulative_counts': 8,  # eight times two images, as on the eight GPUs of the published runs
        'optim_wrapper.clip_grad': dict(max_norm=35, norm_type=2),  # as FGD and MGD publish it; here for all
        'param_scheduler.0.end': 4000,  # a warm-up counts loads: 500 steps
    },
)  # fmt: skip
