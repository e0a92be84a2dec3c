# PKT on instances: the teacher's neighbourhood of each box. Weight: the authors' (RepDistiller), for rows of images;
# paper arXiv 1803.10837. Ours: the rows, which are the ground-truth boxes, slightly jittered, and some background.
distill = dict(
    pkt=dict(
        student='neck[0:4]',
        teacher='neck[0:4]',
        adapter=dict(type='kd_det.Instances', jitter=0.1, background=8),
        loss=dict(type='kd_det.PKTLoss'),
        weight=30000.0,
    )
)
