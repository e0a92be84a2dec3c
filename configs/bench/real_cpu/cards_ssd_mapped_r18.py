# SSD R18 with mapped levels on cards: a teacher of the benchmark for a CPU.
_base_ = ['./models/ssd_mapped_r18.py', './cards_teacher.py']
model = dict(bbox_head=dict(num_classes=6))
