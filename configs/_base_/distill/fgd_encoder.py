# FGD on the encoder of DETR-type detectors (Deformable DETR, DINO): its tokens become one map per level again. Ours;
# the constants, RetinaNet's, are those with which DETRDistill runs FGD on Deformable DETR.
_base_ = './fgd.py'
distill = dict(fgd=dict(student='encoder', teacher='encoder', adapter=dict(type='kd_det.TokenMaps')))
