# CTKD on a dense sigmoid head: soft targets, class by class, whose temperature learns to make them harder. Constants:
# arXiv 2211.16231 (range 1 to 21, ten epochs); binary form, rows and weight are ours. It needs TermScheduleHook, and in
# the optim_wrapper, so that T does not decay: paramwise_cfg=dict(custom_keys=dict(global_T=dict(decay_mult=0.0)))
distill = dict(
    ctkd=dict(
        student='bbox_head[0]',
        teacher='bbox_head[0]',
        adapter=dict(type='kd_det.DenseRows', select='assigned'),
        loss=dict(
            type='kd_det.KDLoss',
            T=dict(type='kd_det.CurriculumTemperature', t_start=1.0, t_end=20.0, decay_loops=10),
            use_sigmoid=True,
        ),
        weight=0.5,
    )
)
