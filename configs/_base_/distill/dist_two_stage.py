# DIST on the second stage: correlations of the probabilities per RoI and per class, on the student's sampled RoIs.
# Constants: hunto/MasKD, mmrazor/configs/distill/dist; paper: arXiv 2205.10536.
distill = dict(
    dist=dict(
        student='roi_head.bbox_head[0]',
        teacher='roi_head.bbox_head[0]',
        adapter=dict(type='kd_det.RoIRows'),
        loss=dict(type='kd_det.DISTLoss', beta=1.0, gamma=1.0, tau=1.0),
    )
)
