# Quality focal loss against the teacher's scores, on all anchors or points of a dense sigmoid head: CrossKD's loss with
# the student's own head. Constants: jbwang1997/CrossKD (exponent 1, weight 1; FCOS 0.4); paper: arXiv 2306.11369.
distill = dict(
    qfl=dict(
        student='bbox_head[0]',
        teacher='bbox_head[0]',
        adapter=dict(type='kd_det.DenseRows', select='all', normalize='positives'),
        loss=dict(type='kd_det.QFLKDLoss', beta=1.0),
    )
)
