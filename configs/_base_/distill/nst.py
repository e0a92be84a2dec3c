# NST on the maps of the neck. Paper: arXiv 1707.01219; weight: HobbitLong/RepDistiller, for classification.
distill = dict(nst=dict(student='neck', teacher='neck', loss=dict(type='kd_det.NSTLoss'), weight=50.0))
