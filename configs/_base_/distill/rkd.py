# RKD on instances: distances and angles between the boxes of a batch. 25 and 50 are the paper's for classification
# (arXiv 1904.05068). Ours: the weight of both (see docs/methods.md); the rows, which are the ground-truth boxes,
# slightly jittered, and some of the background.
distill = dict(
    rkd=dict(
        student='neck[0:4]',
        teacher='neck[0:4]',
        adapter=dict(type='kd_det.Instances', jitter=0.1, background=8),
        loss=dict(type='kd_det.RKDLoss', w_d=25.0, w_a=50.0, max_angle_rows=64),
        weight=0.2,
    )
)
