# PKD, two-stage students: P2 to P5 and weight 6. Constants: mmrazor 1.0, configs/distill/mmdet/pkd.
_base_ = './pkd.py'
distill = dict(pkd=dict(weight=6.0))
