# SSD R18 to a narrow R18 on photographs of playing cards, at reduced size: for a CPU. The students
# train for as long as the teacher, so that the gap is none of training length. The set is expected in data/cards
# (docs/real_data.md).
bench = dict(
    title='SSD R18 to narrow R18, equal epochs',
    teacher='./real_cpu/cards_ssd_r18.py',
    student='./real_cpu/cards_ssd_r18_narrow_long.py',
    methods=dict(
        dist={}, dkd={}, kd={}, mgd={}, ofa={}, pkd={},
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0, 125.0], length=0.5, holdout=0.2, seed=1000),
)  # fmt: skip
