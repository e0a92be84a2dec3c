# FT, first stage: paraphrasers of RetinaNet R101's neck, one epoch, 8 GPUs x 2 images; no student takes part.
# For ft_retina_r101_r50.py. Ours: optimiser and length. Source of the rest: arXiv 1802.04977.
_base_ = ['mmdet::retinanet/retinanet_r101_fpn_2x_coco.py', '../_base_/distill/ft_paraphraser.py']
model = dict(
    _delete_=True,
    type='kd_det.ParaphraserTrainer',
    teacher=dict(
        config='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/'
        'retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth',
    ),
    distill=_base_.distill,
)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='Adam', lr=1e-4), clip_grad=dict(max_norm=35, norm_type=2))
param_scheduler = [dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500)]
train_cfg = dict(max_epochs=1)
val_cfg = val_dataloader = val_evaluator = None  # it would be the teacher's
test_cfg = test_dataloader = test_evaluator = None
custom_imports = dict(imports=['kd_det'], allow_failed_imports=False)
