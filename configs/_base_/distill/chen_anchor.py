# Chen et al., NIPS 2017, for a one-stage anchor head with sigmoid scores (RetinaNet): soft class targets and
# teacher-bounded box regression. Ours: neg_weight 0. Nothing samples the anchors here, and some 10^5 background rows
# over few positives would drown everything else; the focal loss deals with them.
targets = dict(adapter=dict(type='kd_det.AnchorRows'), inputs=dict(targets='bbox_head.get_targets()'), weight=0.5)
distill = dict(
    soft=dict(
        student='bbox_head[0]',
        teacher='bbox_head[0]',
        loss=dict(type='kd_det.SoftTargetLoss', T=1.0, use_sigmoid=True, pos_weight=1.0, neg_weight=0.0),
        **targets,
    ),
    bounded=dict(
        student='bbox_head[1]',
        teacher='bbox_head[1]',
        loss=dict(type='kd_det.TeacherBoundedL2Loss', reg_m=0.0),
        **targets,
    ),
)
task_weights = dict(loss_cls=0.5)
