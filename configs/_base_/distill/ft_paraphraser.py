# FT, first stage: auto-encoders of the teacher's maps, one per level of the neck. Taps and k as in ft.py. Published: k
# 0.5, mean absolute error. For kd_det.ParaphraserTrainer, which needs no student.
distill = dict(ft=dict(teacher='neck', loss=dict(type='kd_det.FTLoss', stage='paraphraser', k=0.5)))
