# SP on instances: who resembles whom among the boxes of a batch (arXiv 1907.09682). Ours: the weight, for the paper's
# 3000 on rows of images (see docs/methods.md); the rows, which are the ground-truth boxes, slightly jittered, and some
# of the background.
distill = dict(
    sp=dict(
        student='neck[0:4]',
        teacher='neck[0:4]',
        adapter=dict(type='kd_det.Instances', jitter=0.1, background=8),
        loss=dict(type='kd_det.SPLoss'),
        weight=100.0,
    )
)
