# AB on the backbone's stages C3 to C5 before their last ReLU. Published only as an initialising stage (30 epochs on
# CIFAR, then training without it), hence the schedule: the first two epochs. The loss is a sum over positions; ours:
# weight 1e-3, because an image of 1333 x 800 has about a thousand times the positions of the authors' 32 x 32.
stages = ['backbone.layer2@pre', 'backbone.layer3@pre', 'backbone.layer4@pre']
distill = dict(
    ab=dict(
        student=stages,
        teacher=stages,
        loss=dict(type='kd_det.ABLoss', margin=1.0),
        weight=1e-3,
        schedule=dict(end=2),
    )
)
