# Faster R-CNN R18 to a RetinaNet on an R18 of a quarter of its width on photographs of playing cards, at reduced size:
# for a CPU. The students are twice as wide as those of cards_cpu_hetero, and train for two thirds of the teacher's
# epochs. The set is expected in data/cards (docs/real_data.md). Levels are paired by the size of the objects that they
# hold: the four finest of each.
bench = dict(
    title='Faster R-CNN R18 to RetinaNet quarter R18',
    teacher='./real_cpu/cards_faster_r18.py',
    student='./real_cpu/cards_retina_r18_quarter.py',
    methods={
        f'{name}_by_size': dict(fragment=name, change=dict(student='neck[0:4]', teacher='neck[0:4]'))
        for name in ('cwd', 'cwd_norm', 'fgd', 'pkd')
    },
    seeds=[0, 1, 2, 3],
    tune=dict(factors=[0.2, 1.0, 5.0], length=0.5, holdout=0.2, seed=1000),
    as_long_as_teacher=True,
)
