# The MultiBox loss of SSD with a teacher: 0.3 soft + 0.7 conf + 0.5 l2 + loc over the number of positives. It gives
# all four parts, so that the head's own losses are switched off.
distill = dict(
    multibox=dict(
        student='bbox_head',
        teacher='bbox_head',
        adapter=dict(type='kd_det.MultiBox'),
        inputs=dict(targets='bbox_head.get_targets()'),
        loss=dict(
            type='kd_det.MultiBoxKDLoss',
            Temp=1.0,
            neg_w=1.5,
            pos_w=1.0,
            reg_m=0.0,
            negpos_ratio=3,
            negatives_for_hard=100,
            soft_weight=0.3,
            conf_weight=0.7,
            l2_weight=0.5,
            loc_weight=1.0,
        ),
    )
)
task_weights = dict(loss_cls=0.0, loss_bbox=0.0)
