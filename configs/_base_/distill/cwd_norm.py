# CWD on maps of the neck that were normalised per channel, as in mmyolo for RTMDet: soft-maxes over positions neither
# flat nor one-hot, whatever the scale of the activations. Constants: mmyolo, configs/rtmdet/distillation.
_base_ = './cwd.py'
distill = dict(cwd=dict(adapter=dict(type='kd_det.Align', norm=True), weight=1.0))
