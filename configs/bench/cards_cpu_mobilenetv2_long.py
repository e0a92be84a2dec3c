# RetinaNet R18 to a MobileNetV2 of a quarter of its width on photographs of playing cards, at reduced size: for a CPU.
# The students train for as long as the teacher, so that the gap is none of training length. The set is expected in
# data/cards (docs/real_data.md).
bench = dict(
    title='RetinaNet R18 to MobileNetV2-0.25, equal epochs',
    teacher='./real_cpu/cards_retina_r18.py',
    student='./real_cpu/cards_retina_mobilenetv2_long.py',
    methods=dict(
        crosskd=dict(change=dict(adapter=dict(idx=1))),  # towers of two convolutions
        fgd={}, pkd={},
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0, 125.0], length=0.5, holdout=0.2, seed=1000),
)  # fmt: skip
