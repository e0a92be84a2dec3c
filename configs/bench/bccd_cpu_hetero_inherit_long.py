# Faster R-CNN R18 to a RetinaNet on an R18 of a quarter of its width on photographs of blood cells, at reduced size:
# for a CPU. As bccd_cpu_hetero_quarter_long, and the students, the plain one too, start with the teacher's neck, whose
# levels hold objects of the same size. It fills the student's: the student's stages from stride 8 are as wide as the
# teacher's from stride 4. The teacher's lateral convolution of stride 32 is left over, and its last 3x3 one becomes the
# student's extra one of stride 2. The set is expected in data/bccd (docs/real_data.md). Levels are paired by size for
# the methods, too: the four finest of each.
_base_ = './bccd_cpu_hetero_quarter_long.py'
bench = dict(
    title='Faster R-CNN R18 to RetinaNet quarter R18, neck inherited, equal epochs',
    inherit=['neck'],
    tune=dict(factors=[1.0, 25.0, 125.0]),
)
