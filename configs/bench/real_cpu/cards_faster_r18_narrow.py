# Faster R-CNN on a narrow R18 on cards: a student of the benchmark for a CPU.
_base_ = ['./models/faster_r18_narrow.py', './cards_student.py']
model = dict(roi_head=dict(bbox_head=dict(num_classes=6)))
