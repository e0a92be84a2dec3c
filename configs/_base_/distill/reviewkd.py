# ReviewKD on the whole pyramid: P3 to P7 of a one-stage detector, P2 to P6 of a two-stage one. Paper: arXiv 2104.09044;
# weight of its repository (dvlab-research/ReviewKD) for ResNet-50 from ResNet-101. Theirs for Faster R-CNN otherwise:
# ResNet-18 from ResNet-101 1.2, MobileNetV2 from ResNet-50 2.0.
distill = dict(reviewkd=dict(student='neck', teacher='neck', loss=dict(type='kd_det.ReviewKDLoss'), weight=1.0))
