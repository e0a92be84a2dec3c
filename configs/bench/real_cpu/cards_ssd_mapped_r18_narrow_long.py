# SSD with mapped levels on a narrow R18 on cards, trained as long as the teacher, for a CPU.
_base_ = ['./models/ssd_mapped_r18_narrow.py', './cards_teacher.py']
model = dict(bbox_head=dict(num_classes=6))
