# GFL R18 to a narrow R18 (an eighth of its width) on photographs of playing cards, at reduced size: for a CPU.
# The set is expected in data/cards (docs/real_data.md).
bench = dict(
    title='GFL R18 to narrow R18',
    teacher='./real_cpu/cards_gfl_r18.py',
    student='./real_cpu/cards_gfl_r18_narrow.py',
    methods=dict(
        ld={},
        crosskd=dict(fragment='crosskd_gfl', change=dict(adapter=dict(idx=1))),  # towers of two convolutions
        pkd={},
    ),
    seeds=[0, 1, 2, 3],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0, 125.0], length=0.5, holdout=0.2, seed=1000),
    as_long_as_teacher=True,
)  # fmt: skip
