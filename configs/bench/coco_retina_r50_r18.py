# RetinaNet R50 (2x, 37.4 mAP) to R18 on COCO at the published 1x schedule.
# For one GPU of 24 GB and COCO in data/coco: 12 epochs of 16 images a step; the teacher is mmdet's own.
# Published weights only; to tune them too, add tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.1).
bench = dict(
    title='RetinaNet R50 to R18, COCO',
    teacher='mmdet::retinanet/retinanet_r50_fpn_2x_coco.py',
    teacher_checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r50_fpn_2x_coco/'
    'retinanet_r50_fpn_2x_coco_20200131-fdb43119.pth',
    student='mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
    methods=dict(
        chen=dict(fragment='chen_anchor'), crosskd={}, cwd={}, dkd={}, fbkd={}, fgd={}, fitnet={}, kd={}, mgd={},
        pkd={}, qfl={}, reviewkd={},
    ),
    seeds=[0, 1, 2],
    options={
        'train_dataloader.batch_size': 2,
        'optim_wrapper.accumulative_counts': 8,  # eight times two images, as on the eight GPUs of the published runs
        'optim_wrapper.clip_grad': dict(max_norm=35, norm_type=2),  # as FGD and MGD publish it; here for all
        'param_scheduler.0.end': 4000,  # a warm-up counts loads: 500 steps
    },
)  # fmt: skip
