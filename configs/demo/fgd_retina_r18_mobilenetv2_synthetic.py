# FGD for the demo. Nothing is inherited from the teacher: plain and distilled student start from equal weights.
# The weight was chosen on another set and another seed (--data-seed 1000 --seeds 100) than any that is reported.
_base_ = ['./retina_mobilenetv2_synthetic.py', '../_base_/distill/fgd.py', '../_base_/distill_runtime.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(config='{{ fileDirname }}/retina_r18_synthetic.py', checkpoint='work_dirs/demo/teacher.pth'),
    distill=dict(fgd=dict(**_base_.distill.fgd, weight=15.0)),
)
