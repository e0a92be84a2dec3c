# GFL R18 on cards: a student of the benchmark.
_base_ = ['./models/gfl_r18.py', './cards_student.py']
model = dict(bbox_head=dict(num_classes=6))
