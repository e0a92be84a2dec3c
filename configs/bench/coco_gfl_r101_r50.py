# GFL R101 (multi-scale 2x, 44.7 mAP) to R50 on COCO at the published 1x schedule.
# For one GPU of 24 GB and COCO in data/coco: 12 epochs of 16 images a step; the teacher is mmdet's own.
# Published weights only; to tune them too, add tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.1).
bench = dict(
    title='GFL R101 to R50, COCO',
    teacher='mmdet::gfl/gfl_r101_fpn_ms-2x_coco.py',
    teacher_checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/'
    'gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth',
    student='mmdet::gfl/gfl_r50_fpn_1x_coco.py',
    methods=dict(
        ld={}, crosskd=dict(fragment='crosskd_gfl'), cwd={}, fgd={}, fitnet={}, kd={}, mgd={}, pkd={}, qfl={},
        reviewkd={},
    ),
    seeds=[0, 1, 2],
    options={
        'train_dataloader.batch_size': 2,
        'optim_wrapper.accumulative_counts': 8,  # eight times two images, as on the eight GPUs of the published runs
        'optim_wrapper.clip_grad': dict(max_norm=35, norm_type=2),  # as FGD and MGD publish it; here for all
        'param_scheduler.0.end': 4000,  # a warm-up counts loads: 500 steps
    },
)  # fmt: skip
