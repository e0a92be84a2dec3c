# PKD, one-stage students, whatever the teacher's family: the first four levels (P3 to P6) and weight 10, as published.
# Paper: arXiv 2207.02039; constants: mmrazor 1.0, configs/distill/mmdet/pkd.
distill = dict(pkd=dict(student='neck[0:4]', teacher='neck[0:4]', loss=dict(type='kd_det.PKDLoss'), weight=10.0))
