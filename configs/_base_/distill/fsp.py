# FSP between neighbouring levels of the neck. Paper: Yim et al., CVPR 2017; weight: HobbitLong/RepDistiller, there for
# a stage before the training. Ours: during it.
distill = dict(fsp=dict(student='neck', teacher='neck', loss=dict(type='kd_det.FSPLoss'), weight=50.0))
