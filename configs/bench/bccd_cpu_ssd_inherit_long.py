# SSD R18 to a narrow R18 (an eighth of its width) on photographs of blood cells, at reduced size: for a CPU. A channel
# mapper gives the levels of both one width, so that students start with the teacher's head, and learn the maps that it
# reads. They train for as long as the teacher, so that the gap is none of training length. The set is expected in
# data/bccd (docs/real_data.md).
bench = dict(
    title='SSD with mapped levels R18 to narrow R18, inherited head, equal epochs',
    teacher='./real_cpu/bccd_ssd_mapped_r18.py',
    student='./real_cpu/bccd_ssd_mapped_r18_narrow_long.py',
    methods=dict(
        cwd={}, fgd={}, fitnet={}, pkd={},
    ),
    seeds=[0, 1, 2, 3, 4],
    inherit=['bbox_head'],
    tune=dict(factors=[0.2, 1.0, 5.0], length=0.5, holdout=0.2, seed=1000),
)  # fmt: skip
