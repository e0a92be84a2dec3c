# CrossKD, GFL: distributions over the distance to each side instead of boxes, divided by the sum of the teacher's
# scores. Constants: jbwang1997/CrossKD, configs/crosskd.
_base_ = './crosskd.py'
distill = dict(
    crosskd=dict(
        loss=dict(loss_reg=None, loss_dist=dict(type='kd_det.KDLoss', T=1.0, loss_weight=4.0), normalize='scores')
    )
)
