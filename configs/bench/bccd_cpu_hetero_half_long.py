# Faster R-CNN R18 to a RetinaNet on photographs of blood cells, at reduced size: for a CPU. Both are on an R18 of half
# its width, so that the students are twice as wide as those of bccd_cpu_hetero_quarter_long; they train for as long as
# the teacher. The set is expected in data/bccd (docs/real_data.md). Levels are paired by the size of the objects that
# they hold: the four finest of each.
bench = dict(
    title='Faster R-CNN R18 to RetinaNet R18, equal epochs',
    teacher='./real_cpu/bccd_faster_r18.py',
    student='./real_cpu/bccd_retina_r18.py',
    methods={
        f'{name}_by_size': dict(fragment=name, change=dict(student='neck[0:4]', teacher='neck[0:4]'))
        for name in ('cwd', 'cwd_norm', 'fgd', 'pkd')
    },
    seeds=[0, 1, 2, 3, 4],
    tune=dict(factors=[1.0, 25.0, 125.0, 625.0], length=0.5, holdout=0.2, seed=1000),
)
