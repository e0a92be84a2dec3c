# CrossKD, FCOS: two convolutions, lower weights, minus the logarithm of the IoU. Constants: jbwang1997/CrossKD,
# configs/crosskd.
_base_ = './crosskd.py'
distill = dict(
    crosskd=dict(
        adapter=dict(idx=2),
        loss=dict(
            loss_cls=dict(loss_weight=0.4),
            loss_reg=dict(_delete_=True, type='mmdet.IoULoss', mode='log', loss_weight=0.75),
        ),
    )
)
