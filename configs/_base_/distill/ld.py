# LD on GFL-type heads: box distributions at positives and in the valuable region around them, class scores at
# positives. Constants: HikariTJU/LD, configs/ld; paper arXiv 2102.12252. Sums are divided by nothing, as in the
# authors' code, so that the weights are for their 2 or 3 images per GPU; adapter=dict(normalise=True) makes them
# independent of that.
distill = dict(
    ld=dict(
        student='bbox_head[1]',
        teacher='bbox_head[1]',
        adapter=dict(type='kd_det.BoxDistributions'),
        loss=dict(
            type='kd_det.LDLoss', ld_T=10.0, ld_weight=0.25, vlr_T=10.0, vlr_weight=0.25, kd_T=2.0, kd_weight=10.0
        ),
    )
)
