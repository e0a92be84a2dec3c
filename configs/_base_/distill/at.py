# Attention transfer on the maps of the neck. Paper: arXiv 1612.03928. Ours: sums over positions, so that large levels
# count as much as small ones; weight: the 1000 of classification, with means, over the 256 positions of a 16x16 map.
distill = dict(
    at=dict(student='neck', teacher='neck', loss=dict(type='kd_det.ATLoss', p=2, sum_positions=True), weight=4.0)
)
