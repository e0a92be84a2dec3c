# Faster R-CNN R50 on cards: a teacher of the benchmark.
_base_ = ['./models/faster_r50.py', './cards_teacher.py']
model = dict(roi_head=dict(bbox_head=dict(num_classes=6)))
