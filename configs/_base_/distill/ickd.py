# ICKD on the maps of the neck. Paper: arXiv 2202.03680; weight: the authors', for CIFAR classification.
distill = dict(ickd=dict(student='neck', teacher='neck', loss=dict(type='kd_det.ICKDLoss'), weight=2.5))
