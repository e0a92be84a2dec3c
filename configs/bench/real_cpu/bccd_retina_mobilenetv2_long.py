# RetinaNet on MobileNetV2-0.25 on bccd, trained for as long as the teacher: a student of the benchmark for a CPU.
_base_ = ['./models/retina_mobilenetv2.py', './bccd_teacher.py']
