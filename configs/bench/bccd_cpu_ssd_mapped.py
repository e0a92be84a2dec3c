# SSD R18 to a narrow R18 (an eighth of its width) on photographs of blood cells, at reduced size: for a CPU. A channel
# mapper gives the levels of both one width, so that maps are compared as they are, without a convolution between them.
# The set is expected in data/bccd (docs/real_data.md).
bench = dict(
    title='SSD with mapped levels R18 to narrow R18',
    teacher='./real_cpu/bccd_ssd_mapped_r18.py',
    student='./real_cpu/bccd_ssd_mapped_r18_narrow.py',
    methods=dict(
        cwd={}, dkd={}, fgd={}, fitnet={}, mgd={}, ofa={}, pkd={}, ssdkd={},
    ),
    seeds=[0, 1, 2],
    as_long_as_teacher=True,
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0, 125.0], length=0.5, holdout=0.2, seed=1000),
)  # fmt: skip
