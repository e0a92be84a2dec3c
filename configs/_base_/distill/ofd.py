# OFD on the backbone's stages C3 to C5 before their last ReLU; margins from the teacher's batch norms, or measured on
# the batch where it has none. Published divisor: 10000 for images of 224 x 224 (ImageNet), over which the loss is a
# sum; ours: weight 0.005, because an image of 1333 x 800 has 21 times as many positions and because a detector's own
# losses are smaller than a classifier's.
stages = ['backbone.layer2@pre', 'backbone.layer3@pre', 'backbone.layer4@pre']
distill = dict(
    ofd=dict(
        student=stages,
        teacher=stages,
        adapter=dict(type='kd_det.TeacherNorms'),
        loss=dict(type='kd_det.OFDLoss', loss_divisor=10000.0),
        weight=0.005,
    )
)
