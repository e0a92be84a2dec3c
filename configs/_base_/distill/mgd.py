# MGD, one-stage detectors. Constants: yzd-v/MGD, det/configs/distillers/mgd; paper arXiv 2205.01529.
distill = dict(
    mgd=dict(student='neck', teacher='neck', loss=dict(type='kd_det.MGDLoss', alpha_mgd=2e-5, lambda_mgd=0.65))
)
