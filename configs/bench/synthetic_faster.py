# Faster R-CNN R18 to a narrow R18 (an eighth of its width): methods with a two-stage form, and three on every neck.
# For a CPU: synthetic shapes of 96 px, a minute per student on one core.
bench = dict(
    title='Faster R-CNN R18 to narrow R18',
    teacher='./synthetic/faster_r18.py',
    student='./synthetic/faster_r18_narrow.py',
    data_root='data/synthetic_96',
    synthetic=dict(seed=0, train=800, val=200, image_size=96),
    methods=dict(
        chen=dict(fragment='chen_two_stage'), ctkd=dict(fragment='ctkd_two_stage'), cwd={},
        dist=dict(fragment='dist_two_stage'), dkd=dict(fragment='dkd_two_stage'), fbkd=dict(fragment='fbkd_two_stage'),
        fgd=dict(fragment='fgd_two_stage'), fitnet={}, kd=dict(fragment='kd_two_stage'),
        logit_std=dict(fragment='logit_std_two_stage'), mgd=dict(fragment='mgd_two_stage'),
        ofa=dict(fragment='ofa_two_stage'), pkd=dict(fragment='pkd_two_stage'), reviewkd={},
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.2, seed=1000),
)  # fmt: skip
