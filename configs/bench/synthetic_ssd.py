# SSD R18 to a narrow R18 (an eighth of its width): the MultiBox recipe of Chen et al. beside methods on features.
# For a CPU: synthetic shapes of 96 px, a minute per student on one core.
bench = dict(
    title='SSD R18 to narrow R18',
    teacher='./synthetic/ssd_r18.py',
    student='./synthetic/ssd_r18_narrow.py',
    data_root='data/synthetic_96',
    synthetic=dict(seed=0, train=800, val=200, image_size=96),
    methods=dict(
        ssdkd={}, cwd={}, fgd={}, fitnet={}, mgd={}, pkd={},
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.2, seed=1000),
)  # fmt: skip
