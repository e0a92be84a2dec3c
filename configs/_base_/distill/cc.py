# CC on instances, the paper's kernel (arXiv 1904.01802; gamma 0.4 and order 2 as in Knowledge-Distillation-Zoo). Ours:
# the weight (see docs/methods.md); the rows, which are the ground-truth boxes, slightly jittered, and some of the
# background.
distill = dict(
    cc=dict(
        student='neck[0:4]',
        teacher='neck[0:4]',
        adapter=dict(type='kd_det.Instances', jitter=0.1, background=8),
        loss=dict(type='kd_det.CCLoss', variant='paper', gamma=0.4, P_order=2),
        weight=50.0,
    )
)
