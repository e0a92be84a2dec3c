# Soft targets of a dense sigmoid head (RetinaNet, FCOS, ATSS, GFL): class by class, on the student's foreground. Paper:
# arXiv 1503.02531, for soft-max classifiers; the binary form, the rows, T 2 and weight 0.5 are ours.
distill = dict(
    kd=dict(
        student='bbox_head[0]',
        teacher='bbox_head[0]',
        adapter=dict(type='kd_det.DenseRows', select='assigned'),
        loss=dict(type='kd_det.KDLoss', T=2.0, use_sigmoid=True),
        weight=0.5,
    )
)
