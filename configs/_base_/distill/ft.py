# FT, second stage: the paraphrasers of the first (ft_paraphraser.py) stay fixed, one per level of the neck; a config
# names their file as distill.ft.loss.paraphraser. Published: k 0.5, weight 500 on one map; ours: 100 on each of five.
distill = dict(ft=dict(student='neck', teacher='neck', loss=dict(type='kd_det.FTLoss', k=0.5), weight=100.0))
