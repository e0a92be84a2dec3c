# SSD R18 to a narrow R18 on photographs of playing cards, at reduced size: for a CPU. A channel
# mapper gives the levels of both one width, so that students start with the teacher's head, and learn the maps that it
# reads. The set is expected in data/cards (docs/real_data.md).
bench = dict(
    title='SSD with mapped levels R18 to narrow R18, inherited head',
    teacher='./real_cpu/cards_ssd_mapped_r18.py',
    student='./real_cpu/cards_ssd_mapped_r18_narrow.py',
    methods=dict(
        cwd={}, fgd={}, fitnet={}, pkd={},
    ),
    seeds=[0, 1, 2, 3],
    inherit=['bbox_head'],
    as_long_as_teacher=True,
    tune=dict(factors=[0.2, 1.0, 5.0], length=0.5, holdout=0.2, seed=1000),
)  # fmt: skip
