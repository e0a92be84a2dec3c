# RetinaNet R50 on cards (COCO json and COCO mAP): the teacher of fgd_retina_r50_r18_cards_coco.py.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', '../_base_/datasets/cards_coco.py', '../_base_/small_set.py']
model = dict(bbox_head=dict(num_classes=6))
