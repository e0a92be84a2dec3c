# DIST on a dense sigmoid head: correlations of the scores, per row and per class. Constants: hunto/MasKD,
# mmrazor/configs/distill/dist (paper: arXiv 2205.10536). It takes all anchors; ours are the student's foreground.
distill = dict(
    dist=dict(
        student='bbox_head[0]',
        teacher='bbox_head[0]',
        adapter=dict(type='kd_det.DenseRows', select='assigned'),
        loss=dict(type='kd_det.DISTLoss', beta=1.0, gamma=1.0, tau=1.0, use_sigmoid=True),
    )
)
