# FGD on the neck and LD on the head together: GFL R101 -> R50, 1x, 8 GPUs x 2 images; else as its base.
# Ours: no published figure (student 40.2, teacher 44.7 mAP). Source of the constants: yzd-v/FGD; HikariTJU/LD.
_base_ = './fgd_gfl_r101_r50.py'
ld = dict(
    student='bbox_head[1]',
    teacher='bbox_head[1]',
    adapter=dict(type='kd_det.BoxDistributions'),
    loss=dict(type='kd_det.LDLoss', ld_T=10.0, ld_weight=0.25, vlr_T=10.0, vlr_weight=0.25, kd_T=2.0, kd_weight=10.0),
)
model = dict(distill=dict(ld=ld))
