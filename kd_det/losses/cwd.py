"""Channel-wise distillation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import check_maps, full_precision, padding_mask
from ._fused import position_divergence
from .temperature import make_temperature, standardise, temperature_of


@MODELS.register_module()
class CWDLoss(nn.Module):
    r"""Channel-wise distillation of one map, features or dense class logits.

    Each channel of each image becomes a distribution over the positions; the student's follows the teacher's:

    .. math::
        L = \frac{\tau^2}{B C} \sum_{b, c} \sum_p \phi_p(t) \big( \log \phi_p(t) - \log \phi_p(s) \big), \quad
        \phi(x) = \mathrm{softmax}_p(x / \tau)

    Cells on the padding of smaller images take no part (``mask_padding``): they hold nothing to learn from, and a flat
    border takes probability away from the objects. In a batch without padding, or without sizes, this is the published
    formula.

    ``standardize`` puts z-scores over the positions of each channel in the place of the map;
    ``tau=dict(type='kd_det.CurriculumTemperature')`` learns tau.

    Reference: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, arXiv 2011.13256.

    Extra memory: blocks of a few channels; nothing is kept for the backward pass but the maps. A learnt temperature and
    ``standardize`` need maps of their own.

    Shape:
        - student: (B, C, H, W)
        - teacher: (B, C, H, W)
        - result: scalar

    Args:
        tau: Temperature.
        loss_weight: Factor of the whole.
        mask_padding: Leave out padded cells where the sizes are known.
        standardize: Standardise each channel over its positions first (without the padding that is left out).
    """

    same_channels = True

    def __init__(
        self,
        tau: float | dict | nn.Module = 1.0,
        loss_weight: float = 1.0,
        mask_padding: bool = True,
        standardize: bool = False,
    ) -> None:
        super().__init__()
        self.tau = make_temperature('CWDLoss', 'tau', tau)
        self.loss_weight, self.mask_padding, self.standardize = loss_weight, mask_padding, standardize

    @full_precision
    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        image_sizes: Sequence[Sequence[int]] | None = None,
        batch_input_shape: Sequence[int] | None = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            student: Shape (B, C, H, W).
            teacher: Shape (B, C, H, W).
            image_sizes: (h, w) of each image in pixels, without padding.
            batch_input_shape: (h, w) of the padded batch in pixels.

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_maps('CWDLoss', student, teacher)
        batch, channels, *map_size = student.shape
        padding = None
        if self.mask_padding and image_sizes is not None and batch_input_shape is not None:
            if len(image_sizes) != batch:
                raise ValueError(
                    f'CWDLoss: image_sizes must hold (h, w) for each of {batch} images, found {len(image_sizes)}.'
                )
            padding = padding_mask(image_sizes, batch_input_shape, tuple(map_size), student.device)
        if padding is not None:
            padding = padding.flatten(1)[:, None]
        student, teacher = student.flatten(2), teacher.flatten(2)
        if self.standardize:
            student, teacher = (standardise(x, ignored=padding) for x in (student, teacher))
        tau = temperature_of(self.tau)
        if isinstance(self.tau, nn.Module):  # learnt: on the graph of both maps
            divergence = position_divergence(student / tau, teacher / tau, ignored=padding)
        else:
            divergence = position_divergence(student, teacher, tau, padding)
        return self.loss_weight * tau**2 * divergence.sum() / (batch * channels)
