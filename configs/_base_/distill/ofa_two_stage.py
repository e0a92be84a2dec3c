# OFA-KD for two-stage detectors: classifiers on stages 2 to 4 of the student's backbone, on its foreground RoIs, and
# its own second stage, against the teacher's. Constants: arXiv 2310.19444, Hao840/OFAKD (exponent 1, temperature 1, all
# weights 1); the paper classifies whole images. Its first stage is left out: MMDetection's backbones freeze it.
roi, loss = 'roi_head.bbox_head[0]', dict(type='kd_det.OFALoss', eps=1.0, temperature=1.0)
stage = dict(type='kd_det.StageClassifier', roi_size=7)
distill = dict(
    ofa=dict(student=roi, teacher=roi, adapter=dict(type='kd_det.RoIRows'), loss=dict(loss, foreground_only=True)),
    ofa_2=dict(student='backbone[1]', teacher=roi, adapter=dict(stage, stages_behind=2), loss=loss),
    ofa_3=dict(student='backbone[2]', teacher=roi, adapter=dict(stage, stages_behind=1), loss=loss),
    ofa_4=dict(student='backbone[3]', teacher=roi, adapter=dict(stage, stages_behind=0), loss=loss),
)
