# FGD, YOLOX. Constants: yzd-v/FGD, branch yolox. Its authors also divide the loss by the factor of the multi-scale
# training; here it is left as it is.
_base_ = './fgd.py'
distill = dict(fgd=dict(loss=dict(alpha_fgd=2e-3, beta_fgd=1e-3, gamma_fgd=1e-3, lambda_fgd=1e-5)))
