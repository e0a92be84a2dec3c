# RetinaNet R18 on cards: a teacher of the benchmark for a CPU.
_base_ = ['./models/retina_r18.py', './cards_teacher.py']
model = dict(bbox_head=dict(num_classes=6))
