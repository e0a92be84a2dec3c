# FCOS R101 (multi-scale 2x, 40.8 mAP) to R50 on COCO at the published multi-scale 2x schedule.
# For one GPU of 24 GB and COCO in data/coco: 24 epochs of 16 images a step; the teacher is mmdet's own.
# Published weights only; to tune them too, add tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.1).
bench = dict(
    title='FCOS R101 to R50, COCO',
    teacher='mmdet::fcos/fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
    teacher_checkpoint='https://download.openmmlab.com/mmdetection/v2.0/fcos/fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco/'
    'fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco-511424d6.pth',
    student='mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
    methods=dict(
        crosskd=dict(fragment='crosskd_fcos'), cwd={}, fgd=dict(fragment='fgd_anchor_free'), fitnet={}, kd={}, mgd={},
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
