# PKT on instances: the teacher's neighbourhood of each box (arXiv 1803.10837). Ours: the weight, for RepDistiller's
# 30000 on rows of images (see docs/methods.md); the rows, which are the ground-truth boxes, slightly jittered, and some
# of the background.
distill = dict(
    pkt=dict(
        student='neck[0:4]',
        teacher='neck[0:4]',
        adapter=dict(type='kd_det.Instances', jitter=0.1, background=8),
        loss=dict(type='kd_det.PKTLoss'),
        weight=2000.0,
    )
)
