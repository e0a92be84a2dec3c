# FGD, anchor-based one-stage detectors (RetinaNet, GFL). Constants: yzd-v/FGD, configs/distillers/fgd. Its paper
# (arXiv 2111.11837, section 4.2) prints gamma 1e-3; the authors' code, which gave the numbers, uses 5e-4.
# Their masks are stretched where a batch is padded; ours are right by default, paper_masks=True gives theirs.
distill = dict(
    fgd=dict(
        student='neck',
        teacher='neck',
        loss=dict(type='kd_det.FGDLoss', temp=0.5, alpha_fgd=1e-3, beta_fgd=5e-4, gamma_fgd=5e-4, lambda_fgd=5e-6),
    )
)
