# CWD on the maps of the neck: per channel, a soft-max over positions. Paper: arXiv 2011.13256; constants: mmrazor 1.0,
# configs/distill/mmdet/cwd.
distill = dict(cwd=dict(student='neck', teacher='neck', loss=dict(type='kd_det.CWDLoss', tau=1.0), weight=10.0))
