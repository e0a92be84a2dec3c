# DeFeat on the maps of the neck. The weights are this example's own.
distill = dict(defeat=dict(student='neck', teacher='neck', loss=dict(type='kd_det.DeFeatLoss')))
