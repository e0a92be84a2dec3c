# Decoder queries of DETR-type heads (Deformable DETR, DINO): the teacher's 100 most confident queries of an image, each
# beside the student's query that the student's own matcher gives it. Ours; weights as CrossKD has for Deformable DETR
# (jbwang1997/CrossKD), where beta is 0: with 1 equality costs nothing. For soft-max scores (DETR): KDLoss.
cls, box = 'bbox_head[0]', 'bbox_head[1]'
rows = dict(type='kd_det.QueryRows', match='hungarian', topk=100)
distill = dict(
    query_cls=dict(student=cls, teacher=cls, adapter=rows, loss=dict(type='kd_det.QFLKDLoss', beta=1.0)),
    query_box=dict(student=box, teacher=box, adapter=rows, loss=dict(type='mmdet.L1Loss', loss_weight=1.0)),
    query_iou=dict(
        student=box,
        teacher=box,
        adapter=dict(rows, box_format='xyxy'),
        loss=dict(type='mmdet.GIoULoss', loss_weight=1.0),
    ),
)
