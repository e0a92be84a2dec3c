# Faster R-CNN R18 to a RetinaNet on a narrow R18 on photographs of blood cells, at reduced size: for a CPU.
# The set is expected in data/bccd (docs/real_data.md).
# Levels are paired by stride (P3 to P5 of both), and beside it by the size of the objects that they hold: the four
# finest levels of each, the student's maps resized to twice their size.
bench = dict(
    title='Faster R-CNN R18 to RetinaNet narrow R18',
    teacher='./real_cpu/bccd_faster_r18.py',
    student='./real_cpu/bccd_retina_r18_narrow.py',
    methods={name: dict(change=dict(student='neck[0:3]', teacher='neck[1:4]')) for name in ('cwd', 'fgd', 'pkd')}
    | {
        f'{name}_by_size': dict(fragment=name, change=dict(student='neck[0:4]', teacher='neck[0:4]'))
        for name in ('cwd', 'fgd', 'pkd')
    },
    seeds=[0, 1, 2, 3, 4],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0, 125.0], length=0.5, holdout=0.2, seed=1000),
    as_long_as_teacher=True,
)
