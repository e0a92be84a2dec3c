# Faster R-CNN R18 to a narrow R18 (an eighth of its width) on photographs of blood cells, at reduced size: for a CPU.
# The set is expected in data/bccd (docs/real_data.md).
bench = dict(
    title='Faster R-CNN R18 to narrow R18',
    teacher='./real_cpu/bccd_faster_r18.py',
    student='./real_cpu/bccd_faster_r18_narrow.py',
    methods=dict(
        cwd={}, fgd=dict(fragment='fgd_two_stage'), pkd=dict(fragment='pkd_two_stage'),
    ),
    seeds=[0, 1, 2, 3, 4],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0, 125.0], length=0.5, holdout=0.2, seed=1000),
    as_long_as_teacher=True,
)  # fmt: skip
