"""Channel-wise distillation (arXiv 2011.13256)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ._plain import kl_rows


def formula(
    student: Tensor,
    teacher: Tensor,
    tau: float = 1.0,
    loss_weight: float = 1.0,
    image_sizes: Sequence[Sequence[int]] | None = None,
    batch_input_shape: Sequence[int] | None = None,
) -> Tensor:
    """Soft-max over the positions of each channel; cells on the padding are cut off, image after image."""
    batch, channels, height, width = student.shape
    total = 0.0
    for i in range(batch):
        inside = (height, width)
        if image_sizes is not None:
            inside = [-(-size * cells // full) for size, cells, full in zip(image_sizes[i], inside, batch_input_shape)]
        s, t = (x[i, :, : inside[0], : inside[1]].flatten(1) for x in (student, teacher))
        total = total + kl_rows(s, t, tau).sum()
    return loss_weight * tau**2 * total / (batch * channels)
