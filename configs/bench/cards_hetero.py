# Faster R-CNN R50 to RetinaNet R18 on photographs of playing cards: two families, features only:
# P3 to P5, which both have at strides 8 to 32.
# For a GPU; the set is expected in data/cards (docs/real_data.md). All from scratch, so nothing is downloaded.
# "By size" pairs levels that hold objects of one size instead: the four finest of each, the student's resized.
bench = dict(
    title='Faster R-CNN R50 to RetinaNet R18',
    teacher='./real/cards_faster_r50.py',
    student='./real/cards_retina_r18.py',
    methods={
        name: dict(change=dict(student='neck[0:3]', teacher='neck[1:4]'))
        for name in ('at', 'cwd', 'fgd', 'fitnet', 'ickd', 'mgd', 'nst', 'pkd', 'pkt', 'reviewkd', 'sp', 'vid')
    }
    | {
        f'{name}_by_size': dict(fragment=name, change=dict(student='neck[0:4]', teacher='neck[0:4]'))
        for name in ('cwd', 'fgd', 'pkd')
    },
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.2, seed=1000),
    longer=2.0,
    cache_images=True,
)  # fmt: skip
