"""The plan: what each term compares, found by one dry forward of both networks before the first step."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from torch import Tensor, nn

from kd_det.errors import ConfigError
from kd_det.taps import levels_of

from .term import is_default_align

#: Sizes (h, w) of the dry forward, tried in order: small, and as large as SSD512 needs; with instance masks, and
#: without, as RTMDet takes them where they are but does not know those of a data loader.
PROBES = tuple((size, masks) for size in ((128, 192), (320, 320), (512, 512)) for masks in (True, False))


@dataclass
class Row:
    """One level of one term."""

    term: str
    level: str
    student: str
    teacher: str
    adapter: str
    loss: str
    parameters: int


@dataclass
class Plan:
    """The plan of a :class:`~kd_det.detectors.DistillDetector`.

    Attributes:
        size: (h, w) of the dry forward, in pixels.
        rows: One per term and level.
        notes: What else the reader should know.
    """

    size: tuple[int, int] = (0, 0)
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, term: Any, pairs: list[Any], student: Any, teacher: Any) -> None:
        """Add a term, from its pairs and the two readings of the dry forward."""
        notes = term.adapter.notes or ['-']
        self.notes += term.notes
        aligned = is_default_align(term.adapter) and not term.multi_level
        raw = list(zip(levels_of(student), levels_of(teacher))) if aligned else [(p.student, p.teacher) for p in pairs]
        for index in range(len(pairs)):
            self.rows.append(
                Row(
                    term.name,
                    'all' if term.multi_level else str(index),
                    f'{_names(term.student_taps, index, term.multi_level)} {self._shape(raw[index][0])}',
                    f'{_names(term.teacher_taps, index, term.multi_level)} {self._shape(raw[index][1])}',
                    notes[index] if index < len(notes) else notes[-1],
                    f'{term.weight:g} x {type(term.losses[index]).__name__}',
                    sum(p.numel() for p in term.losses[index].parameters())
                    + (sum(p.numel() for p in term.adapter.parameters()) if index == 0 else 0),
                )
            )

    def _shape(self, value: Any) -> str:
        if isinstance(value, Tensor) and value.dim() == 4:
            stride = max(1, round(self.size[0] / value.shape[2]))
            return f'{value.shape[1]}x{value.shape[2]}x{value.shape[3]} /{stride}'
        if isinstance(value, Tensor):
            return 'x'.join(map(str, value.shape))
        if isinstance(value, dict):
            return ', '.join(f'{k} {self._shape(v)}' for k, v in value.items())
        return '; '.join(self._shape(v) for v in value) if isinstance(value, (list, tuple)) else type(value).__name__

    def table(self) -> str:
        """The plan as text."""
        head = ('term', 'level', 'student', 'teacher', 'adapter', 'loss', 'parameters')
        cells = [head] + [tuple(str(getattr(row, name)) for name in head) for row in self.rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
        lines = ['  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
        lines.insert(1, '  '.join('-' * width for width in widths))
        title = f'Distillation plan, shapes (C x H x W /stride) for an image of {self.size[0]}x{self.size[1]}'
        return '\n'.join([title, *lines, *self.notes])


def _names(taps: list[Any], index: int, together: bool) -> str:
    if len(taps) == 1 or together:
        return ', '.join(tap.text for tap in taps)
    return taps[min(index, len(taps) - 1)].text


@contextlib.contextmanager
def untouched(*networks: nn.Module) -> Iterator[None]:
    """Run networks in eval mode and leave no trace: modes, buffers and all random states are as before.

    Each process is by itself meanwhile.
    """
    modes = [(module, module.training) for network in networks for module in network.modules()]
    buffers = [(buffer, buffer.detach().clone()) for network in networks for buffer in network.buffers()]
    python, numpy = random.getstate(), np.random.get_state()
    try:
        devices = {p.device for network in networks for p in network.parameters() if p.device.type == 'cuda'}
        with torch.random.fork_rng(devices=list(devices)), torch.no_grad(), _alone():
            for network in networks:
                network.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """No other process is asked: the networks are still on the CPU, where NCCL cannot average what heads count."""
    asked = torch.distributed.is_initialized
    torch.distributed.is_initialized = lambda: False
    try:
        yield
    finally:
        torch.distributed.is_initialized = asked


def probe_batch(size: tuple[int, int], device: torch.device, masks: bool = True) -> tuple[Tensor, list[DetDataSample]]:
    """A batch for the dry forward: one normalised image with two boxes, and their masks."""
    height, width = size
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.3, 0.4, 0.9, 0.9]], device=device)
    sample = DetDataSample(
        metainfo=dict(
            img_id=0, img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0)
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes * boxes.new_tensor([width, height, width, height]),
        labels=torch.zeros(2, dtype=torch.long, device=device),
    )
    if masks:
        bitmaps = np.zeros((2, height, width), np.uint8)
        bitmaps[:, height // 3 : height // 2, width // 3 : width // 2] = 1
        sample.gt_instances.masks = BitmapMasks(bitmaps, height, width)
    sample.ignored_instances = InstanceData(
        bboxes=boxes.new_zeros(0, 4), labels=torch.zeros(0, dtype=torch.long, device=device)
    )
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, height, width, generator=generator).to(device), [sample]


def raise_together(errors: list[ConfigError]) -> None:
    """Raise one error for all that were collected.

    Raises:
        ConfigError: If there are any.
    """
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ConfigError(f'{len(errors)} errors in the config:\n' + '\n'.join(f'- {error}' for error in errors))
