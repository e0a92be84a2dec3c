# RetinaNet R50 to R18 on photographs of playing cards: every method that a RetinaNet can take.
# For a GPU; the set is expected in data/cards (docs/real_data.md). All from scratch, so nothing is downloaded.
bench = dict(
    title='RetinaNet R50 to R18',
    teacher='./real/cards_retina_r50.py',
    student='./real/cards_retina_r18.py',
    methods=dict(
        ab={}, at={}, cc={}, chen_anchor={}, crd={},
        crosskd=dict(change=dict(adapter=dict(idx=1))),  # towers of two convolutions
        ctkd={}, cwd={}, cwd_norm={}, dist={}, dkd={}, fbkd={}, fgd={}, fitnet={}, fsp={}, ft={}, ickd={}, kd={},
        logit_std={}, mgd={}, nst={}, ofa={}, ofd={}, pkd={}, pkt={}, qfl={}, reviewkd={}, rkd={}, sp={}, vid={},
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.2, seed=1000),
    longer=1.5,
    self_distilled='fgd',
    random_teacher=['fgd', 'kd'],
    shuffled_teacher=['fgd', 'kd', 'qfl'],
    cache_images=True,
)  # fmt: skip
