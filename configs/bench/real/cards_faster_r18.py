# Faster R-CNN R18 on cards: a student of the benchmark.
_base_ = ['./models/faster_r18.py', './cards_student.py']
model = dict(roi_head=dict(bbox_head=dict(num_classes=6)))
