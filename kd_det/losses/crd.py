"""Contrastive representation distillation."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.registry import MODELS

from ._functional import full_precision, shape_of
from ._rows import flat_rows, nothing, unit


@MODELS.register_module()
class CRDLoss(nn.Module):
    r"""Contrast: the student's embedding of an instance near the teacher's of the same one, far from those of others.

    Both sides pass a linear layer to ``feat_dim`` numbers, scaled to length 1 (a, b). Two memories hold the last
    embeddings of all ``n_data`` instances: v1 of the student, v2 of the teacher. With one positive (k = 0) and K
    negatives per row and c = K / n_data,

    .. math::
        o_{ik} = \exp(v^2_{idx_{ik}} \cdot a_i / T) / Z_1, \quad
        L_s = -\frac 1 N \sum_i \Big[ \log \frac{o_{i0}}{o_{i0} + c + \epsilon}
            + \sum_{k > 0} \log \frac{c}{o_{ik} + c + \epsilon} \Big]

    and L_t the same with v1 and b; L is their sum. Z is ``n_data`` times the mean of the first batch (over all
    processes), then fixed. After each training step the memories of the batch move to
    ``unit(m v + (1 - m) embedding)``, on all processes alike; where an instance occurs twice, its last row counts.
    Memories and Z are saved in checkpoints. Nothing of this happens in eval mode.

    Rows whose ``idx`` is negative have no instance and do not count. Without ``contrast_idx`` the negatives are drawn
    evenly from all other instances; a row's own is never among them.

    :class:`~kd_det.hooks.InstanceIdHook` numbers the instances of a training set and makes memories for as many.

    Reference: Tian, Krishnan and Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699. The
    paper's weight is 0.8.

    Extra memory: two memories of n_data x feat_dim; in a step, two slices of N x (K + 1) x feat_dim.

    Shape:
        - student: (N, student_channels)
        - teacher: (N, teacher_channels)
        - idx: (N,); contrast_idx: (N, K + 1)
        - result: scalar

    Args:
        student_channels: Width of the student's rows.
        teacher_channels: Width of the teacher's rows.
        n_data: Number of instances; None: as many as the hook counts, or as a checkpoint holds.
        feat_dim: Width of the embedding.
        nce_k: Number of negatives K.
        nce_t: Temperature T.
        nce_m: Momentum m of the memories.
        eps: Added to the denominators.
        loss_weight: Factor of the whole.
    """

    same_channels = False
    row_adapter = 'kd_det.Instances'

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        n_data: int | None = None,
        feat_dim: int = 128,
        nce_k: int = 16384,
        nce_t: float = 0.07,
        nce_m: float = 0.5,
        eps: float = 1e-7,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        for key, value, wanted, good in (
            ('nce_k', nce_k, '1 negative or more', nce_k >= 1),
            ('nce_t', nce_t, 'a temperature above 0', nce_t > 0),
            ('nce_m', nce_m, 'a share from 0 to 1', 0 <= nce_m <= 1),
        ):
            if not good:
                raise ConfigError(f'CRDLoss: {key}={value!r}, expected {wanted}.')
        self.student_channels, self.teacher_channels, self.n_data = student_channels, teacher_channels, n_data
        self.nce_k, self.nce_t, self.nce_m, self.eps, self.loss_weight = nce_k, nce_t, nce_m, eps, loss_weight
        self.embed_s = nn.ModuleDict(dict(linear=nn.Linear(student_channels, feat_dim)))
        self.embed_t = nn.ModuleDict(dict(linear=nn.Linear(teacher_channels, feat_dim)))
        self.feat_dim = feat_dim
        self.register_buffer('memory_v1', torch.empty(0, feat_dim))
        self.register_buffer('memory_v2', torch.empty(0, feat_dim))
        self.register_buffer('Z_v1', torch.zeros(()))  # 0: not measured yet
        self.register_buffer('Z_v2', torch.zeros(()))
        if n_data is not None:
            self.hold(n_data)

    def hold(self, n_data: int) -> None:
        """Make new memories, random and on all processes alike.

        Args:
            n_data: Number of instances.

        Raises:
            ConfigError: If they are fewer than two.
        """
        if n_data < 2:
            raise ConfigError(f'CRDLoss: n_data={n_data!r}, expected 2 instances or more.')
        self.n_data = n_data
        generator, edge = torch.Generator().manual_seed(0), 1 / math.sqrt(self.feat_dim / 3)
        for name in ('memory_v1', 'memory_v2'):
            memory = torch.empty(n_data, self.feat_dim).uniform_(-edge, edge, generator=generator)
            setattr(self, name, memory.to(self.get_buffer(name)))
        self.Z_v1.zero_()
        self.Z_v2.zero_()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the size of the memories from a checkpoint, if nobody has said it yet."""
        saved = state_dict.get(f'{prefix}memory_v1')
        if self.n_data is None and saved is not None and saved.shape[0]:
            self.hold(saved.shape[0])
        super()._load_from_state_dict(state_dict, prefix, *args)

    @full_precision
    def forward(
        self, student: Tensor, teacher: Tensor, idx: Tensor | None, contrast_idx: Tensor | None = None
    ) -> Tensor:
        """Compute the loss; in training mode, also update the memories.

        Args:
            student: Shape (N, student_channels); N may be 0.
            teacher: Shape (N, teacher_channels).
            idx: The instance of each row, from 0 to n_data - 1, negative for none; shape (N,).
            contrast_idx: ``idx`` in column 0, then the negatives, shape (N, K + 1); None draws them.

        Returns:
            Scalar.

        Raises:
            ConfigError: If the instances have no ids (``idx`` None), or were never counted (``n_data`` None).
            ValueError: If shapes do not fit.
        """
        if idx is None or self.n_data is None:
            found = f'n_data={self.n_data!r}' if idx is not None else 'ground truth without ids'
            raise ConfigError(
                f'CRDLoss: found {found}, but each instance needs its place in the memory; expected '
                "dict(type='kd_det.InstanceIdHook') in custom_hooks, beside your other hooks, and "
                "adapter=dict(type='kd_det.Instances') in the term."
            )
        return self.loss_weight * sum(self.parts(student, teacher, idx, contrast_idx))

    def parts(
        self, student: Tensor, teacher: Tensor, idx: Tensor, contrast_idx: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss with the student and with the teacher as anchor, without weight; updates like :meth:`forward`."""
        shapes = f'student {shape_of(student)}, teacher {shape_of(teacher)}, idx {shape_of(idx)}'
        shapes += '' if contrast_idx is None else f', contrast_idx {shape_of(contrast_idx)}'
        student, teacher = flat_rows('CRDLoss', student, teacher)
        number = student.shape[0]
        fits = (student.shape[1], teacher.shape[1]) == (self.student_channels, self.teacher_channels)
        fits = fits and tuple(idx.shape) == (number,)
        if contrast_idx is not None:
            fits = fits and contrast_idx.dim() == 2 and contrast_idx.shape[0] == number and contrast_idx.shape[1] > 1
        if not fits:
            raise ValueError(
                f'CRDLoss: expected student (N, {self.student_channels}), teacher (N, {self.teacher_channels}), idx '
                f'(N,) and contrast_idx (N, K + 1), found {shapes}.'
            )
        a, b = unit(self.embed_s['linear'](student)), unit(self.embed_t['linear'](teacher))
        counted = (idx >= 0).to(a.dtype)
        if contrast_idx is None:
            contrast_idx = self.draw(idx)
        contrast_idx = contrast_idx.clamp(min=0)
        first = self._contrast(a, self.memory_v2, contrast_idx, self.Z_v1, counted)
        second = self._contrast(b, self.memory_v1, contrast_idx, self.Z_v2, counted)
        if self.training:
            self._update(a.detach(), b.detach(), idx)
        return first, second

    def draw(self, idx: Tensor) -> Tensor:
        """``idx``, shape (N,), and beside it K other instances for each row: shape (N, K + 1)."""
        own = idx.clamp(min=0)[:, None]
        others = torch.randint(self.n_data - 1, (idx.shape[0], self.nce_k), device=idx.device)
        return torch.cat((own, others + (others >= own)), 1)

    def _contrast(self, anchor: Tensor, memory: Tensor, index: Tensor, Z: Tensor, counted: Tensor) -> Tensor:
        if anchor.shape[0] == 0:
            scores = anchor.new_zeros(0, index.shape[1])
        else:
            slices = memory.to(anchor.dtype).index_select(0, index.flatten()).view(*index.shape, -1)
            scores = torch.bmm(slices, anchor[:, :, None]).squeeze(2) / self.nce_t
        scale = self._scale(scores.detach(), Z, counted)
        value = torch.exp(scores) / scale
        c = (index.shape[1] - 1) / self.n_data
        rows = torch.log(value[:, 0] / (value[:, 0] + c + self.eps))
        rows = rows + torch.log(c / (value[:, 1:] + c + self.eps)).sum(1)
        return nothing(anchor) - (rows * counted).sum() / counted.sum().clamp(min=1)

    @torch.no_grad()
    def _scale(self, scores: Tensor, Z: Tensor, counted: Tensor) -> Tensor:
        """Z; measured now if it was not before."""
        sums = torch.stack(((torch.exp(scores) * counted[:, None]).sum(), counted.sum() * scores.shape[1]))
        if self.training and _processes() > 1:
            dist.all_reduce(sums)
        measured = self.n_data * sums[0] / sums[1].clamp(min=1)
        scale = torch.where(Z > 0, Z.to(measured.dtype), measured)
        if self.training:
            Z.copy_(scale)
        return torch.where(scale > 0, scale, torch.ones_like(scale))

    @torch.no_grad()
    def _update(self, a: Tensor, b: Tensor, idx: Tensor) -> None:
        if _processes() > 1:
            gathered: list = [None] * _processes()
            dist.all_gather_object(gathered, (a.cpu(), b.cpu(), idx.cpu()))
            a, b, idx = (torch.cat(parts).to(a.device) for parts in zip(*gathered))
        if not idx.shape[0]:
            return
        # Rows of no instance repeat the first one that has one; all rows of an instance write its last embedding.
        valid = idx >= 0
        place = torch.arange(idx.shape[0], device=idx.device)
        index = idx[torch.where(valid, place, valid.int().argmax())].clamp(min=0)
        last = ((index[:, None] == idx) * place).amax(1)
        for memory, rows in ((self.memory_v1, a), (self.memory_v2, b)):
            old = memory[index]
            moved = unit(self.nce_m * old + (1 - self.nce_m) * rows[last].to(old.dtype))
            memory.index_copy_(0, index, torch.where(valid.any(), moved, old))


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
