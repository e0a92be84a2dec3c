# Logit standardisation on the second stage: z-scores of both classifiers on the student's sampled RoIs. T 2: arXiv
# 2403.01427; its weight 9, for classification, is 1 here.
distill = dict(
    logit_std=dict(
        student='roi_head.bbox_head[0]',
        teacher='roi_head.bbox_head[0]',
        adapter=dict(type='kd_det.RoIRows'),
        loss=dict(type='kd_det.KDLoss', T=2.0, standardize=True),
    )
)
