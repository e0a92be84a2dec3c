# CTKD on the second stage: soft targets whose temperature learns to make them harder. Constants: arXiv 2211.16231
# (range 1 to 21, ten epochs); the weight is that of kd_two_stage.py. It needs TermScheduleHook, and in the
# optim_wrapper, against decay of the temperature: paramwise_cfg=dict(custom_keys=dict(global_T=dict(decay_mult=0.0)))
distill = dict(
    ctkd=dict(
        student='roi_head.bbox_head[0]',
        teacher='roi_head.bbox_head[0]',
        adapter=dict(type='kd_det.RoIRows'),
        loss=dict(
            type='kd_det.KDLoss',
            T=dict(type='kd_det.CurriculumTemperature', t_start=1.0, t_end=20.0, decay_loops=10),
        ),
        weight=0.5,
    )
)
