"""One-for-all distillation: soft targets that trust the teacher where it is sure."""

from __future__ import annotations

import torch.nn.functional as F
from mmengine.model import kaiming_init
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS

from ._functional import full_precision
from ._maps import BatchNorm
from ._rows import counted_rows, logit_rows, row_mean
from .temperature import make_temperature, standardise, temperature_of


@MODELS.register_module()
class OFALoss(nn.Module):
    r"""Soft targets whose true class weighs more the surer the teacher is; for classifiers on intermediate features.

    .. math::
        L = -\frac 1 N \sum_i \sum_c \big( (p_{ic} + [c = y_i])^\epsilon - [c = y_i] \big) \log q_{ic}

    p and q are the teacher's and the student's soft-max of ``z / temperature``, y the label of the row. The exponent
    holds for all classes, as in the authors' code; for ``eps=1`` this is the cross entropy to the teacher. There is no
    factor of the temperature. The loss is not 0 at equality.

    Rows whose label is no column (the background of sigmoid heads) do not count; ``foreground_only`` also leaves out
    the last column. With K = 1 the loss is 0.

    Reference: Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation",
    NeurIPS 2023, arXiv 2310.19444.

    Extra memory: about four tensors of N x K.

    Shape:
        - student, teacher: logits (N, K) or (B, K, H, W)
        - labels, label_weights: (N,) or (B, H, W)
        - result: scalar

    Args:
        eps: Exponent (gamma in the paper); the authors take 1 for CIFAR, 1.5 for ImageNet.
        temperature: Temperature.
        standardize: Standardise the logits of each row first; for K > 2.
        foreground_only: Leave out rows labelled with the last column, MMDetection's background of soft-max heads. The
            normaliser is then the number of rows left, whatever ``avg_factor`` says.
        loss_weight: Factor of the whole.
    """

    same_channels = True
    row_adapter = 'kd_det.DenseRows'

    def __init__(
        self,
        eps: float = 1.0,
        temperature: float | dict | nn.Module = 1.0,
        standardize: bool = False,
        foreground_only: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not eps > 0:
            raise ConfigError(f'OFALoss: eps={eps!r}, expected an exponent above 0.')
        self.temperature = make_temperature('OFALoss', 'temperature', temperature)
        self.eps, self.standardize = eps, standardize
        self.foreground_only, self.loss_weight = foreground_only, loss_weight

    @full_precision
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: Tensor | float | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            student: Logits, shape (N, K) or (B, K, H, W); N may be 0.
            teacher: Logits of the same shape.
            labels: Class of each row, shape (N,) or (B, H, W), int.
            label_weights: Weight of each row, of the same shape.
            avg_factor: Normaliser; None: the number of rows that count.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        student, teacher, others = logit_rows('OFALoss', student, teacher, labels=labels, label_weights=label_weights)
        labels, columns = others['labels'], student.shape[1]
        weights = counted_rows(labels, others['label_weights'], student, self.foreground_only)
        if self.standardize:
            student, teacher = standardise(student), standardise(teacher)
        temperature = temperature_of(self.temperature)
        p = (teacher / temperature).softmax(1)
        true = F.one_hot(labels.long().clamp(0, columns - 1), columns).to(p.dtype)
        rows = -(((p + true) ** self.eps - true) * (student / temperature).log_softmax(1)).sum(1)
        return self.loss_weight * row_mean(rows, weights, None if self.foreground_only else avg_factor)


class OFAProjector(nn.Module):
    """The classifier that :class:`OFALoss` puts on an intermediate stage of a convolutional student.

    ``blocks`` times a depthwise-separable block of stride 2 (twice: 3x3 depthwise, 1x1, batch norm, ReLU; without
    bias), as many as there are stages behind, and after the last stage a 1x1 convolution with bias instead; then the
    mean over the map and a linear layer to the classes. Widths double from block to block, as those of a ResNet do,
    and end at ``out_channels``. All convolutions start from a normal distribution (Kaiming, fan-out).

    Shape:
        - input: (N, C, H, W), one map per instance
        - result: logits (N, K)

    Args:
        in_channels: C.
        num_classes: K.
        blocks: Number of stages behind this one: 3 for the first of four, 0 for the last.
        out_channels: Width before the linear layer; None: ``in_channels * 2**blocks``.
    """

    def __init__(self, in_channels: int, num_classes: int, blocks: int = 0, out_channels: int | None = None) -> None:
        super().__init__()
        if blocks < 0:
            raise ConfigError(f'OFAProjector: blocks={blocks!r}, expected the number of stages behind, 0 or more.')
        widths = [in_channels * 2**i for i in range(blocks + 1)]
        widths[-1] = out_channels or widths[-1]
        layers = [_separable(one, other) for one, other in zip(widths, widths[1:])]
        self.body = nn.Sequential(*(layers or [nn.Conv2d(in_channels, widths[-1], 1)]))
        self.classifier = nn.Linear(widths[-1], num_classes)
        for layer in self.body.modules():
            if isinstance(layer, nn.Conv2d):
                kaiming_init(layer, mode='fan_out', nonlinearity='relu', distribution='normal')

    def forward(self, features: Tensor) -> Tensor:
        """Classify instances.

        Args:
            features: Shape (N, C, H, W), N at least 2 in training: batch norm needs them.

        Returns:
            Logits, shape (N, K).
        """
        return self.classifier(self.body(features).mean((2, 3)))


def _separable(in_channels: int, out_channels: int) -> nn.Sequential:
    """A depthwise-separable block of stride 2."""
    layers: list[nn.Module] = []
    for stride, width in ((2, in_channels), (1, out_channels)):
        layers += [
            nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, width, 1, bias=False),
            BatchNorm(width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
