# MGD for the demo; see the FGD config for what is equal in the plain student.
_base_ = ['./retina_mobilenetv2_synthetic.py', '../_base_/distill/mgd.py', '../_base_/distill_runtime.py']
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(config='{{ fileDirname }}/retina_r18_synthetic.py', checkpoint='work_dirs/demo/teacher.pth'),
    distill=dict(mgd=dict(**_base_.distill.mgd, weight=20.0)),
)
