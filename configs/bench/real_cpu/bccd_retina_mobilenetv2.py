# RetinaNet on MobileNetV2-0.25 on bccd: a student of the benchmark for a CPU.
_base_ = ['./models/retina_mobilenetv2.py', './bccd_student.py']
