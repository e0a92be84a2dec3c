# Faster R-CNN R18 to a RetinaNet on a narrow R18 (an eighth of its width): two families, features only.
# P3 to P5, which both have at strides 8 to 32; the teacher's P6 is a max-pooled P5, its P2 has no like in the student.
# For a CPU: synthetic shapes of 96 px, a minute per student on one core.
# "By size" pairs levels that hold objects of one size instead: the four finest of each, the student's resized.
bench = dict(
    title='Faster R-CNN R18 to RetinaNet narrow R18',
    teacher='./synthetic/faster_r18.py',
    student='./synthetic/retina_r18_narrow.py',
    data_root='data/synthetic_96',
    synthetic=dict(seed=0, train=800, val=200, image_size=96),
    methods={
        name: dict(change=dict(student='neck[0:3]', teacher='neck[1:4]'))
        for name in ('at', 'cwd', 'fgd', 'fitnet', 'mgd', 'nst', 'pkd', 'pkt', 'reviewkd', 'sp', 'vid')
    }
    | {
        f'{name}_by_size': dict(fragment=name, change=dict(student='neck[0:4]', teacher='neck[0:4]'))
        for name in ('cwd', 'fgd', 'pkd')
    },
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.2, seed=1000),
)  # fmt: skip
