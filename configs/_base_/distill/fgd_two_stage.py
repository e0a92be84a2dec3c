# FGD, two-stage detectors (Faster and Mask R-CNN): P2 to P5. The fifth level, a max-pooled P5, is left out as by the
# authors, who tap the four convolutions. Constants: yzd-v/FGD, configs/distillers/fgd.
_base_ = './fgd.py'
distill = dict(
    fgd=dict(
        student='neck[0:4]',
        teacher='neck[0:4]',
        loss=dict(alpha_fgd=5e-5, beta_fgd=2.5e-5, gamma_fgd=5e-5, lambda_fgd=5e-7),
    )
)
