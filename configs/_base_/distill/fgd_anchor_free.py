# FGD, anchor-free one-stage detectors (FCOS). Constants: yzd-v/FGD, configs/distillers/fgd.
_base_ = './fgd.py'
distill = dict(fgd=dict(loss=dict(temp=0.8, alpha_fgd=1.6e-3, beta_fgd=8e-4, gamma_fgd=8e-4, lambda_fgd=8e-6)))
