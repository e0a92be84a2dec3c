"""Decoupled features."""

from torch import Tensor, nn

from kd_det.registry import MODELS

from ._functional import box_masks, check_boxes, check_maps, full_precision


@MODELS.register_module()
class DeFeatLoss(nn.Module):
    r"""Squared differences inside and outside the ground-truth boxes, each by its own weight.

    .. math:: L = \frac{\alpha_{obj}}{2 N_{obj}} \sum M (s - t)^2 + \frac{\alpha_{bg}}{2 N_{bg}} \sum (1 - M) (s - t)^2

    M is 1 in the boxes, and N counts the cells of either kind.

    Reference: Guo et al., "Distilling Object Detectors via Decoupled Features", CVPR 2021, arXiv 2103.14475.
    """

    def __init__(self, alpha_obj: float = 0.08, alpha_bg: float = 0.16) -> None:
        super().__init__()
        self.alpha_obj, self.alpha_bg = alpha_obj, alpha_bg

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor, gt_bboxes: list, batch_input_shape: tuple) -> Tensor:
        check_maps('DeFeatLoss', student, teacher)
        boxes = check_boxes('DeFeatLoss', gt_bboxes, len(student))
        inside = box_masks(boxes, student.shape[-2:], [batch_input_shape] * len(boxes))[0] > 0
        error = (student - teacher).square().sum(1) / 2
        parts = [(self.alpha_obj, inside), (self.alpha_bg, ~inside)]
        return sum(alpha * (error * mask).sum() / mask.sum().clamp(min=1) for alpha, mask in parts)
