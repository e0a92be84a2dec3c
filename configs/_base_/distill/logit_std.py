# Logit standardisation on a dense head of at least three classes: z-scores of the class scores of the student's
# foreground, compared through a soft-max. T 2: arXiv 2403.01427; its weight 9, for classification, is 1 here. The rows
# are ours.
distill = dict(
    logit_std=dict(
        student='bbox_head[0]',
        teacher='bbox_head[0]',
        adapter=dict(type='kd_det.DenseRows', select='assigned'),
        loss=dict(type='kd_det.KDLoss', T=2.0, standardize=True),
    )
)
