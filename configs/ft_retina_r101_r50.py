# FT: RetinaNet R101 -> R50, 1x, 8 GPUs x 2 images, no inheriting.
# Ours (student 36.5, teacher 38.9 mAP on COCO val2017): published for image classification. Source of the constants:
# arXiv 1802.04977; see the fragment for the weight.
# First the paraphrasers:  tools/dist_train.sh configs/first_stage/ft_paraphraser_retina_r101.py 8
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', './_base_/distill/ft.py', './_base_/distill_runtime.py']
_base_.distill.ft.loss.paraphraser = 'work_dirs/ft_paraphraser_retina_r101/epoch_1.pth'
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r101_fpn_2x_coco/'
        'retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth',
    ),
    distill=_base_.distill,
)
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
