# The eight methods most used in detection on photographs of playing cards, at reduced size: for a CPU.
# The set is expected in data/cards (docs/real_data.md).
bench = dict(
    title='RetinaNet R18 to narrow R18',
    teacher='./cards_cpu/retina_r18.py',
    student='./cards_cpu/retina_r18_narrow.py',
    methods=dict(
        crosskd=dict(change=dict(adapter=dict(idx=1))),  # towers of two convolutions
        cwd={},
        fgd={},
        fitnet={},
        kd={},
        mgd={},
        pkd={},
        reviewkd={},
    ),
    seeds=[0, 1, 2, 3],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0, 125.0], length=0.5, holdout=0.2, seed=1000),
    longer=2.0,
    random_teacher=['fgd'],
)
