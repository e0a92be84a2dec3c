# FGD for the CPU run on bccd. Nothing is inherited from the teacher: plain and distilled student start from equal
# weights. The weight is the demo's, chosen on synthetic pictures: nothing was tuned on the images that are reported.
_base_ = ['./retina_mobilenetv2_bccd_cpu.py', '../_base_/distill/fgd.py', '../_base_/distill_runtime.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(config='{{ fileDirname }}/retina_r18_bccd_cpu.py', checkpoint='work_dirs/real/bccd/teacher.pth'),
    distill=dict(fgd=dict(**_base_.distill.fgd, weight=15.0)),
)
