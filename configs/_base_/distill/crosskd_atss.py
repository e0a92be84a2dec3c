# CrossKD, ATSS: RetinaNet's, and the centerness of positives. Constants: jbwang1997/CrossKD, configs/crosskd.
_base_ = './crosskd.py'
distill = dict(crosskd=dict(loss=dict(centerness_weight=1.0)))
