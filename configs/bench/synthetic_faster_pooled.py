# Faster R-CNN with a second stage that averages before it classifies: SDD, and what it extends.
# For a CPU: synthetic shapes of 96 px, a minute per student on one core.
bench = dict(
    title='Faster R-CNN, averaged head, R18 to narrow R18',
    teacher='./synthetic/faster_pooled_r18.py',
    student='./synthetic/faster_pooled_r18_narrow.py',
    data_root='data/synthetic_96',
    synthetic=dict(seed=0, train=800, val=200, image_size=96),
    methods=dict(
        sdd={}, kd=dict(fragment='kd_two_stage'), dkd=dict(fragment='dkd_two_stage'),
        fgd=dict(fragment='fgd_two_stage'), pkd=dict(fragment='pkd_two_stage'),
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.2, seed=1000),
)  # fmt: skip
