# Soft targets of the second stage: the teacher scores the student's sampled RoIs, background included. Paper: arXiv
# 1503.02531; T 3 and weight 0.5 are those of the Faster R-CNN branch of jbwang1997/CrossKD.
distill = dict(
    kd=dict(
        student='roi_head.bbox_head[0]',
        teacher='roi_head.bbox_head[0]',
        adapter=dict(type='kd_det.RoIRows'),
        loss=dict(type='kd_det.KDLoss', T=3.0),
        weight=0.5,
    )
)
