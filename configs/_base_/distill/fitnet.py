# FitNet hints on the maps of the neck: a 1x1 convolution where widths differ, without ReLU, as these maps are signed.
# Paper: arXiv 1412.6550; weight: what HikariTJU/LD gives such feature imitation (100 in CIFAR classification).
distill = dict(fitnet=dict(student='neck', teacher='neck', loss=dict(type='kd_det.FitNetLoss'), weight=2.0))
