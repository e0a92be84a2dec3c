# RetinaNet R50 on cards: a teacher of the benchmark.
_base_ = ['./models/retina_r50.py', './cards_teacher.py']
model = dict(bbox_head=dict(num_classes=6))
