# The same images and boxes as bccd_coco.py, read from VOC's XML files and measured as VOC does.
# XMLDataset, not VOCDataset: the latter makes the metric print the names of VOC's own classes.
_base_ = './bccd_coco.py'
voc = dict(type='XMLDataset', data_prefix=dict(_delete_=True, sub_data_root='VOC2007/'))
train_dataloader = dict(dataset=dict(ann_file='VOC2007/ImageSets/Main/train.txt', **voc))
val_dataloader = dict(dataset=dict(ann_file='VOC2007/ImageSets/Main/val.txt', **voc))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='VOCMetric', metric='mAP', eval_mode='area')
test_evaluator = val_evaluator
