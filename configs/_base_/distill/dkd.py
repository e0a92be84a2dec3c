# DKD on a dense head: a soft-max over the classes of the student's foreground, each row with its assigned class.
# Constants: those of the second stage in megvii-research/mdistiller; paper: arXiv 2203.08679. The rows are ours.
distill = dict(
    dkd=dict(
        student='bbox_head[0]',
        teacher='bbox_head[0]',
        adapter=dict(type='kd_det.DenseRows', select='assigned'),
        loss=dict(type='kd_det.DKDLoss', alpha=1.0, beta=0.25, temperature=1.0),
    )
)
