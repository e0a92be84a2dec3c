# Faster R-CNN R101 to R50 on PASCAL VOC 07+12 at the schedule of mmdet.
# For one GPU of 24 GB and VOC in data/VOCdevkit: 4 epochs of thrice the set. The teacher is trained first.
# Published weights only; to tune them too, add tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.1).
bench = dict(
    title='Faster R-CNN R101 to R50, VOC 07+12',
    teacher='../plain/faster_r101_voc0712.py',
    student='mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py',
    methods=dict(
        chen=dict(fragment='chen_two_stage'), cwd={}, dist=dict(fragment='dist_two_stage'),
        dkd=dict(fragment='dkd_two_stage'), fbkd=dict(fragment='fbkd_two_stage'), fgd=dict(fragment='fgd_two_stage'),
        fitnet={}, kd=dict(fragment='kd_two_stage'), mgd=dict(fragment='mgd_two_stage'),
        pkd=dict(fragment='pkd_two_stage'), reviewkd={},
    ),
    seeds=[0, 1, 2],
    options={
        'train_dataloader.batch_size': 2,
        'optim_wrapper.accumulative_counts': 8,  # eight times two images, as on the eight GPUs of the published runs
        'optim_wrapper.clip_grad': dict(max_norm=35, norm_type=2),  # as FGD and MGD publish it; here for all
    },
)  # fmt: skip
