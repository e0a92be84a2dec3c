# SSD R18 to a narrow R18 (an eighth of its width) on photographs of blood cells, at reduced size: for a CPU.
# The set is expected in data/bccd (docs/real_data.md).
bench = dict(
    title='SSD R18 to narrow R18',
    teacher='./real_cpu/bccd_ssd_r18.py',
    student='./real_cpu/bccd_ssd_r18_narrow.py',
    methods=dict(
        ssdkd={}, at={}, cwd={}, fgd={}, fitnet={}, mgd={}, pkd={}, dist={}, dkd={}, kd={}, ofa={},
    ),
    seeds=[0, 1, 2, 3, 4],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0, 125.0], length=0.5, holdout=0.2, seed=1000),
    as_long_as_teacher=True,
)  # fmt: skip
