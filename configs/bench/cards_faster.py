# Faster R-CNN R50 to R18 on photographs of playing cards: methods with a two-stage form, and some on every neck.
# For a GPU; the set is expected in data/cards (docs/real_data.md). All from scratch, so nothing is downloaded.
bench = dict(
    title='Faster R-CNN R50 to R18',
    teacher='./real/cards_faster_r50.py',
    student='./real/cards_faster_r18.py',
    methods=dict(
        at={}, chen=dict(fragment='chen_two_stage'), crd={}, ctkd=dict(fragment='ctkd_two_stage'), cwd={},
        dist=dict(fragment='dist_two_stage'), dkd=dict(fragment='dkd_two_stage'), fbkd=dict(fragment='fbkd_two_stage'),
        fgd=dict(fragment='fgd_two_stage'), fitnet={}, kd=dict(fragment='kd_two_stage'),
        logit_std=dict(fragment='logit_std_two_stage'), mgd=dict(fragment='mgd_two_stage'),
        ofa=dict(fragment='ofa_two_stage'), pkd=dict(fragment='pkd_two_stage'), pkt={}, reviewkd={}, rkd={},
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.2, seed=1000),
    longer=2.0,
    self_distilled='pkd',
    cache_images=True,
)  # fmt: skip
