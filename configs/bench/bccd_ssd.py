# SSD R50 to R18 on photographs of blood cells (bccd): the MultiBox recipe of Chen et al. beside methods on features.
# For a GPU; the set is expected in data/bccd (docs/real_data.md). All from scratch, so nothing is downloaded.
bench = dict(
    title='SSD R50 to R18',
    teacher='./real/bccd_ssd_r50.py',
    student='./real/bccd_ssd_r18.py',
    methods=dict(
        ssdkd={}, at={}, cwd={}, fgd={}, fitnet={}, mgd={}, nst={}, pkd={},
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.2, seed=1000),
    longer=2.0,
    self_distilled='pkd',
    cache_images=True,
)  # fmt: skip
