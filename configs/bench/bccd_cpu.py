# The eight methods most used in detection on real photographs of blood cells, at reduced size: for a CPU.
# The set is expected in data/bccd (docs/real_data.md).
bench = dict(
    title='RetinaNet R18 to narrow R18',
    teacher='./bccd_cpu/retina_r18.py',
    student='./bccd_cpu/retina_r18_narrow.py',
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
    seeds=[0, 1, 2, 3, 4],  # three left most intervals too wide
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0, 125.0], length=0.5, holdout=0.2, seed=1000),
    longer=2.0,
    as_long_as_teacher=True,
    self_distilled='fgd',
    random_teacher=['fgd'],
    shuffled_teacher=['kd'],
)
