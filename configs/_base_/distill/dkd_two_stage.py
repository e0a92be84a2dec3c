# DKD on the second stage: the student's sampled RoIs, background included, no warm-up. Constants:
# megvii-research/mdistiller, detection; paper: arXiv 2203.08679.
distill = dict(
    dkd=dict(
        student='roi_head.bbox_head[0]',
        teacher='roi_head.bbox_head[0]',
        adapter=dict(type='kd_det.RoIRows'),
        loss=dict(type='kd_det.DKDLoss', alpha=1.0, beta=0.25, temperature=1.0),
    )
)
