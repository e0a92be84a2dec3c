# RetinaNet R50 on bccd (VOC xml and VOC mAP): the teacher of fgd_retina_r50_r18_bccd_voc.py.
_base_ = ['mmdet::_base_/models/retinanet_r50_fpn.py', '../_base_/datasets/bccd_voc.py', '../_base_/small_set.py']
model = dict(bbox_head=dict(num_classes=3))
