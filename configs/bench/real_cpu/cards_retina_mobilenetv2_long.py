# RetinaNet on MobileNetV2-0.25 on cards, trained for as long as the teacher: a student of the benchmark for a CPU.
_base_ = ['./models/retina_mobilenetv2.py', './cards_teacher.py']
model = dict(bbox_head=dict(num_classes=6))
