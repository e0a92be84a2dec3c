# RetinaNet on an R18 of half its width for small photographs: 64 channels, anchors of 16 to 181 px.
_base_ = '../../real/models/retina_r18.py'
model = dict(
    backbone=dict(base_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    bbox_head=dict(
        in_channels=64, feat_channels=64, anchor_generator=dict(octave_base_scale=2, scales_per_octave=2, ratios=[1.0])
    ),
)
