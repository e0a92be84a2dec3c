# Chen et al., NIPS 2017, for Faster R-CNN: soft class targets and teacher-bounded box regression, on the RoI head (the
# teacher scores the student's sampled RoIs) and on the RPN. Paper: mu = nu = 0.5, background weight 1.5, T = 1. Class
# losses are mu hard + (1 - mu) soft, hence task_weights. Its hint term on backbone features is left out.
soft = dict(type='kd_det.SoftTargetLoss', T=1.0, pos_weight=1.0, neg_weight=1.5)
bounded = dict(type='kd_det.TeacherBoundedL2Loss', reg_m=0.0)
rois = dict(adapter=dict(type='kd_det.RoIRows'), inputs=dict(targets='roi_head.bbox_head.get_targets()'), weight=0.5)
anchors = dict(adapter=dict(type='kd_det.AnchorRows'), inputs=dict(targets='rpn_head.get_targets()'), weight=0.5)
roi_cls, roi_reg, rpn_cls, rpn_reg = 'roi_head.bbox_head[0]', 'roi_head.bbox_head[1]', 'rpn_head[0]', 'rpn_head[1]'
distill = dict(
    roi_soft=dict(student=roi_cls, teacher=roi_cls, loss=soft, **rois),
    roi_bounded=dict(student=roi_reg, teacher=roi_reg, loss=bounded, **rois),
    rpn_soft=dict(student=rpn_cls, teacher=rpn_cls, loss=dict(soft, use_sigmoid=True), **anchors),
    rpn_bounded=dict(student=rpn_reg, teacher=rpn_reg, loss=bounded, **anchors),
)
task_weights = dict(loss_cls=0.5, loss_rpn_cls=0.5)
