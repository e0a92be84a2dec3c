# RetinaNet R50 to MobileNetV2 on photographs of playing cards: every method but those on ResNet stages (ab, ofd).
# For a GPU; the set is expected in data/cards (docs/real_data.md). All from scratch, so nothing is downloaded.
bench = dict(
    title='RetinaNet R50 to MobileNetV2',
    teacher='./real/cards_retina_r50.py',
    student='./real/cards_retina_mobilenetv2.py',
    methods=dict(
        at={}, cc={}, chen_anchor={}, crd={},
        crosskd=dict(change=dict(adapter=dict(idx=1))),  # towers of two convolutions
        ctkd={}, cwd={}, cwd_norm={}, dist={}, dkd={}, fbkd={}, fgd={}, fitnet={}, fsp={}, ft={}, ickd={}, kd={},
        logit_std={}, mgd={}, nst={}, ofa={}, pkd={}, pkt={}, qfl={}, reviewkd={}, rkd={}, sp={}, vid={},
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.2, seed=1000),
    longer=2.0,
    self_distilled='pkd',
    cache_images=True,
)  # fmt: skip
