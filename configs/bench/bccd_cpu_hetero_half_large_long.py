# Faster R-CNN R18 to a RetinaNet on photographs of blood cells, at reduced size: for a CPU. Both are on an R18 of half
# its width, students train for as long as the teacher, and levels are paired by the size of objects, as in
# bccd_cpu_hetero_half_long, but images have 240 x 180 px, as in RetinaNet's own pair, bccd_cpu. The set is expected in
# data/bccd (docs/real_data.md).
_base_ = './bccd_cpu_hetero_quarter_long.py'
scale = (240, 180)
bench = dict(
    title='Faster R-CNN R18 to RetinaNet R18, larger images, equal epochs',
    student='./real_cpu/bccd_retina_r18.py',
    options={
        'train_dataloader.dataset.pipeline.2.scale': scale,
        'val_dataloader.dataset.pipeline.1.scale': scale,
        'test_dataloader.dataset.pipeline.1.scale': scale,
    },
)
