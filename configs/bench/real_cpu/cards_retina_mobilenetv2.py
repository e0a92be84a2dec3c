# RetinaNet on MobileNetV2-0.25 on cards: a student of the benchmark for a CPU.
_base_ = ['./models/retina_mobilenetv2.py', './cards_student.py']
model = dict(bbox_head=dict(num_classes=6))
