# SDD on the RoI maps of a second stage that pools before it classifies (BBoxHead(with_avg_pool=True), the C4 head):
# each network's own classifier on the regions of the student's sampled RoIs. Published: temperature 4, contradicting
# regions count double, grids of 1, 2 and 4; ours: weight 0.5 beside the whole task loss (published for images: 0.9 of
# this and 0.1 of that).
distill = dict(
    sdd=dict(
        student='roi_head.bbox_head@in[0]',
        teacher='roi_head.bbox_head@in[0]',
        adapter=dict(type='kd_det.RoIPyramid', M=[1, 2, 4]),
        loss=dict(type='kd_det.SDDLoss', temperature=4.0, weight_complementary=2.0),
        weight=0.5,
    )
)
