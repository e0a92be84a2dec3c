# FBKD, one-stage detectors. Ours: P3 to P6, each with the sizes that the authors give a map of that stride in Faster
# R-CNN; weights and source: fbkd_two_stage.py.
fbkd = dict(type='kd_det.FBKDLoss', sub_sample=True)
distill = dict(
    fbkd_p3=dict(student='neck[0]', teacher='neck[0]', loss=dict(fbkd, reduction=4, maxpool_stride=4)),
    fbkd_p4=dict(student='neck[1]', teacher='neck[1]', loss=dict(fbkd, reduction=2, maxpool_stride=2)),
    fbkd_p5=dict(student='neck[2]', teacher='neck[2]', loss=dict(fbkd, reduction=2, maxpool_stride=2)),
    fbkd_p6=dict(student='neck[3]', teacher='neck[3]', loss=dict(fbkd, reduction=2, maxpool_stride=2)),
)
