# RetinaNet R18 to a MobileNetV2 of a quarter of its width: the eight most used methods on a light student.
# For a CPU: synthetic shapes of 96 px, a minute per student on one core.
bench = dict(
    title='RetinaNet R18 to MobileNetV2-0.25',
    teacher='./synthetic/retina_r18.py',
    student='./synthetic/retina_mobilenetv2.py',
    data_root='data/synthetic_96',
    synthetic=dict(seed=0, train=800, val=200, image_size=96),
    methods=dict(
        fgd={}, mgd={}, cwd={}, pkd={}, fitnet={}, kd={}, dkd={},
        crosskd=dict(change=dict(adapter=dict(idx=1))),  # towers of two convolutions
    ),
    seeds=[0, 1, 2],
    tune=dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.2, seed=1000),
)  # fmt: skip
