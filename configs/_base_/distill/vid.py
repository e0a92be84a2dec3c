# VID on the maps of the neck, one regressor and one set of variances per level. Paper: arXiv 1904.05835; constants:
# HobbitLong/RepDistiller, for classification. The loss may be negative.
distill = dict(
    vid=dict(student='neck', teacher='neck', loss=dict(type='kd_det.VIDLoss', init_pred_var=5.0), weight=1.0)
)
