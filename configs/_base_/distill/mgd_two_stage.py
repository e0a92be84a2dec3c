# MGD, two-stage detectors: P2 to P5, without the max-pooled level. Constants: yzd-v/MGD, det/configs/distillers/mgd.
_base_ = './mgd.py'
distill = dict(mgd=dict(student='neck[0:4]', teacher='neck[0:4]', loss=dict(alpha_mgd=5e-7, lambda_mgd=0.45)))
