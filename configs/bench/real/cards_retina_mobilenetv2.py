# RetinaNet MobileNetV2 on cards: a student of the benchmark.
_base_ = ['./models/retina_mobilenetv2.py', './cards_student.py']
model = dict(bbox_head=dict(num_classes=6))
