# All methods that a RetinaNet can take, R18 to a narrow R18 (an eighth of its width), on synthetic shapes: for a CPU.
bench = dict(
    title='RetinaNet R18 to narrow R18',
    teacher='./synthetic/retina_r18.py',
    student='./synthetic/retina_r18_narrow.py',
    data_root='data/synthetic_96',
    synthetic=dict(seed=0, train=800, val=200, image_size=96),
    methods=dict(
        ab={}, at={}, cc={}, chen_anchor={}, crd={},
        crosskd=dict(change=dict(adapter=dict(idx=1))),  # towers of two convolutions
        ctkd={}, cwd={}, cwd_norm={}, dist={}, dkd={}, fbkd={}, fgd={}, fitnet={}, fsp={}, ft={}, ickd={}, kd={},
        logit_std={}, mgd={}, nst={}, ofa={}, ofd={}, pkd={}, pkt={}, qfl={}, reviewkd={}, rkd={}, sp={}, vid={},
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0, 125.0], length=0.5, holdout=0.2, seed=1000),
    longer=2.0,
    as_long_as_teacher=True,
    self_distilled='fgd',
    random_teacher=['fgd', 'kd'],
    shuffled_teacher=['fgd', 'kd', 'qfl'],
)  # fmt: skip
