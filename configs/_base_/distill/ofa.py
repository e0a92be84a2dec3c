# OFA's loss on a dense head: a soft-max over the classes of the student's foreground, each row with its assigned class.
# Constants: arXiv 2310.19444, Hao840/OFAKD (exponent 1, temperature 1); the rows are ours.
distill = dict(
    ofa=dict(
        student='bbox_head[0]',
        teacher='bbox_head[0]',
        adapter=dict(type='kd_det.DenseRows', select='assigned'),
        loss=dict(type='kd_det.OFALoss', eps=1.0, temperature=1.0),
    )
)
