# CrossKD, RetinaNet: the student's tower features after three convolutions, through the rest of the teacher's head.
# Paper: arXiv 2306.11369; constants: jbwang1997/CrossKD, configs/crosskd.
distill = dict(
    crosskd=dict(
        student='bbox_head@in[0]',
        teacher='bbox_head',
        adapter=dict(type='kd_det.CrossHead', idx=3),
        loss=dict(
            type='kd_det.CrossKDLoss',
            loss_cls=dict(type='kd_det.QFLKDLoss', beta=1.0, loss_weight=1.0),
            loss_reg=dict(type='mmdet.GIoULoss', loss_weight=1.0),
        ),
    )
)
