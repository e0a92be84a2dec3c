# RetinaNet MobileNetV2 on bccd: a student of the benchmark.
_base_ = ['./models/retina_mobilenetv2.py', './bccd_student.py']
