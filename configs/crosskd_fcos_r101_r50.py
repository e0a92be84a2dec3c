# CrossKD: FCOS R101 -> R50, 2x multi-scale, 8 GPUs x 2 images.
# Published: 38.5 -> 41.1 mAP on COCO val2017 (teacher 40.8). Source: README and configs of the authors' repository,
# jbwang1997/CrossKD; arXiv 2306.11369.
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
    './_base_/distill/crosskd_fcos.py',
    './_base_/distill_runtime.py',
]
model = dict(
    _delete_=True,
    type='kd_det.DistillDetector',
    student=_base_.model,
    teacher=dict(
        config='mmdet::fcos/fcos_r101-caffe_fpn_gn-head_ms-640-800-2x_coco.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/fcos/'
        'fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco/'
        'fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco-511424d6.pth',
    ),
    distill=_base_.distill,
)
