# RetinaNet on an R18 of a quarter of its width on cards, trained for two thirds of the teacher's epochs: a student of
# the benchmark for a CPU.
_base_ = ['./models/retina_r18_quarter.py', './cards_student.py']
model = dict(bbox_head=dict(num_classes=6))

epochs = 24
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60),
    dict(type='CosineAnnealingLR', by_epoch=True, T_max=epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
