# FCOS R50 to R18 on photographs of blood cells (bccd): a detector without anchors.
# For a GPU; the set is expected in data/bccd (docs/real_data.md). All from scratch, so nothing is downloaded.
bench = dict(
    title='FCOS R50 to R18',
    teacher='./real/bccd_fcos_r50.py',
    student='./real/bccd_fcos_r18.py',
    methods=dict(
        crosskd=dict(fragment='crosskd_fcos', change=dict(adapter=dict(idx=1))),  # towers of two convolutions
        cwd={}, dist={}, fgd=dict(fragment='fgd_anchor_free'), fitnet={}, kd={}, mgd={}, pkd={}, qfl={}, reviewkd={},
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.2, seed=1000),
    longer=2.0,
    self_distilled='pkd',
    cache_images=True,
)  # fmt: skip
