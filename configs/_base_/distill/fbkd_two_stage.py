# FBKD, two-stage detectors: P2 to P5, one term each, since the non-local blocks shrink the larger maps more. Weights:
# the defaults of the loss (features and relations 7e-5, attention 4e-3). Paper: ICLR 2021, OpenReview uKhGRvM8QNH;
# constants: mmrazor 1.0, configs/distill/mmdet/fbkd, with the pooling that is written there, once: that port pools
# twice, by 2 and by the stride, and so in fact by 16, 8, 4 and 4.
fbkd = dict(type='kd_det.FBKDLoss', sub_sample=True)
distill = dict(
    fbkd_p2=dict(student='neck[0]', teacher='neck[0]', loss=dict(fbkd, reduction=4, maxpool_stride=8)),
    fbkd_p3=dict(student='neck[1]', teacher='neck[1]', loss=dict(fbkd, reduction=4, maxpool_stride=4)),
    fbkd_p4=dict(student='neck[2]', teacher='neck[2]', loss=dict(fbkd, reduction=2, maxpool_stride=2)),
    fbkd_p5=dict(student='neck[3]', teacher='neck[3]', loss=dict(fbkd, reduction=2, maxpool_stride=2)),
)
