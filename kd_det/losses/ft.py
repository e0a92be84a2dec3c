"""Factor transfer."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from kd_det.checkpoint import load_checkpoint_safely
from kd_det.errors import CheckpointError, ConfigError, did_you_mean
from kd_det.registry import MODELS

from ._functional import full_precision
from ._maps import BatchNorm, check_pair, pool_to_smaller

_CHOICES = {
    'stage': ('transfer', 'paraphraser'),
    'form': ('paper', 'attention'),
    'reconstruction': ('l1', 'mse'),
}
_IN_CHECKPOINT = re.compile(r'(?:^|\.)distill\.(?P<term>\w+)\.losses\.(?P<level>\d+)\.paraphraser\.(?P<name>.+)$')


def encoder(channels: int, factor_channels: int, batch_norm: bool = False) -> nn.Sequential:
    """Three 3x3 convolutions, channels -> channels -> factor_channels -> factor_channels, LeakyReLU 0.1 after each."""
    layers = OrderedDict()
    widths = (channels, channels, factor_channels, factor_channels)
    for i in range(3):
        layers[f'conv{i}'] = nn.Conv2d(widths[i], widths[i + 1], 3, padding=1)
        if batch_norm:
            layers[f'bn{i}'] = BatchNorm(widths[i + 1])
        layers[f'relu{i}'] = nn.LeakyReLU(0.1)
    return nn.Sequential(layers)


class Paraphraser(nn.Module):
    """Auto-encoder of the teacher's maps; the code is the factor.

    Args:
        channels: Channels of the maps.
        factor_channels: Channels of the factor.
    """

    def __init__(self, channels: int, factor_channels: int) -> None:
        super().__init__()
        self.encoder = encoder(channels, factor_channels)
        layers = OrderedDict()
        widths = (factor_channels, factor_channels, channels, channels)
        for i in range(3):
            layers[f'deconv{i}'] = nn.ConvTranspose2d(widths[i], widths[i + 1], 3, padding=1)
            layers[f'relu{i}'] = nn.LeakyReLU(0.1)
        self.decoder = nn.Sequential(layers)

    def forward(self, maps: Tensor) -> Tensor:
        """The reconstruction: shape (B, C, H, W) to the same."""
        return self.decoder(self.encoder(maps))


def load_paraphraser(model: Paraphraser, source: str, level: int, number: int | None = None) -> None:
    """Load the paraphraser of one level out of the checkpoint of a first stage.

    Args:
        model: The paraphraser.
        source: Path or URL.
        level: Which one.
        number: How many levels the file must have: another slice of a pyramid has its levels elsewhere. None: any.

    Raises:
        CheckpointError: If the file cannot be read safely, or holds no paraphraser of this level, or one of another
            shape, or those of several terms.
    """
    key = 'FTLoss.paraphraser'
    weights = load_checkpoint_safely(source, key=key)['state_dict']
    found: dict[str, dict[str, Tensor]] = {}
    levels = set()
    for name, value in weights.items():
        match = _IN_CHECKPOINT.search(name)
        if match:
            levels.add(int(match['level']))
            if int(match['level']) == level:
                found.setdefault(match['term'], {})[match['name']] = value
    if len(found) != 1:
        held = f'those of the terms {", ".join(found)}' if found else f'none (levels in it: {sorted(levels) or "no"})'
        raise CheckpointError(
            f'{key}: {source!r}: expected one paraphraser of level {level}, found {held}; expected the checkpoint of a '
            "training with loss=dict(type='kd_det.FTLoss', stage='paraphraser') at the same taps."
        )
    if number is not None and len(levels) != number:
        raise CheckpointError(
            f'{key}: {source!r} has paraphrasers of {len(levels)} levels, and the taps of this term give {number}; '
            'expected the same taps in both stages.'
        )
    (theirs,) = found.values()
    ours = model.state_dict()
    wrong = [
        f'{name} is {tuple(theirs[name].shape) if name in theirs else "missing"}, expected {tuple(value.shape)}'
        for name, value in ours.items()
        if name not in theirs or theirs[name].shape != value.shape
    ]
    if wrong:
        raise CheckpointError(
            f'{key}: {source!r} does not fit level {level}: {"; ".join(wrong[:3])}. Expected the same teacher, taps '
            'and k in both stages.'
        )
    model.load_state_dict({name: theirs[name] for name in ours})


@MODELS.register_module()
class FTLoss(nn.Module):
    r"""Factor transfer of one feature map: a translation of the student's map equals a paraphrase of the teacher's.

    .. math::
        L = w \, \mathrm{mean} \, \big| F_s - F_t \big|, \quad
        F = \frac{f}{\lVert f \rVert_2} \text{ over } C, H, W \text{ of an image}

    with f the output of the translator (student) or of the encoder of the paraphraser (teacher). The paraphraser is
    trained first, by itself: with ``stage='paraphraser'`` the loss is its reconstruction error on the teacher's maps,
    and the student learns nothing (:class:`~kd_det.detectors.ParaphraserTrainer` runs no student at all). Then
    ``stage='transfer'`` starts from that checkpoint, ``paraphraser='work_dirs/…/epoch_1.pth'``; the paraphraser stays
    fixed.

    ``form='attention'`` compares, instead of the factors, the mean of their squares over the channels, of unit length
    over the positions, as some published code does; it is not the paper's loss.

    Reference: Kim, Park and Kwak, "Paraphrasing Complex Network: Network Compression via Factor Transfer", NeurIPS
    2018, arXiv 1802.04977. Published weight: 500; after the division by the length the values are of the size of one
    over the root of C x H x W.

    Extra memory: twelve maps, six of the width of the inputs and six of the width of the factor.

    Shape:
        - student: (B, student_channels, H_s, W_s)
        - teacher: (B, teacher_channels, H_t, W_t); factors of different sizes are pooled to (h, w) of the smaller
        - result: scalar

    Args:
        student_channels: Channels of the student's map.
        teacher_channels: Channels of the teacher's map.
        k: Channels of the factor as a share of ``teacher_channels``.
        stage: 'transfer', or 'paraphraser' to train the auto-encoder.
        form: 'paper' or 'attention'.
        reconstruction: Error of the auto-encoder, the mean of absolute ('l1') or squared ('mse') differences.
        translator_bn: Put batch norm into the translator, after each convolution.
        paraphraser: Path or URL of the checkpoint of the first stage, read when training starts. None: the paraphraser
            keeps its random weights, with a warning.
        level: Which of the checkpoint's paraphrasers; set by the term, one per level.
        levels: How many the checkpoint must have; set by the term.
        loss_weight: Factor of the whole.
    """

    same_channels = False

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        k: float = 0.5,
        stage: str = 'transfer',
        form: str = 'paper',
        reconstruction: str = 'l1',
        translator_bn: bool = False,
        paraphraser: str | None = None,
        level: int = 0,
        levels: int | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        for key, value in (('stage', stage), ('form', form), ('reconstruction', reconstruction)):
            if value not in _CHOICES[key]:
                choices = ' or '.join(map(repr, _CHOICES[key]))
                hint = did_you_mean(str(value), _CHOICES[key])
                raise ConfigError(f'FTLoss: {key}={value!r}, expected {choices}.{hint}')
        factor_channels = round(k * teacher_channels)
        if factor_channels < 1 or abs(factor_channels - k * teacher_channels) > 1e-6:
            raise ConfigError(
                f'FTLoss: k={k!r} of {teacher_channels} channels are {k * teacher_channels:g}; expected a whole number.'
            )
        self.student_channels, self.teacher_channels = student_channels, teacher_channels
        self.stage, self.form, self.reconstruction, self.loss_weight = stage, form, reconstruction, loss_weight
        self.source, self.level, self.levels = paraphraser, level, levels
        self._has_weights = stage == 'paraphraser'
        self.paraphraser = Paraphraser(teacher_channels, factor_channels)
        if stage == 'transfer':
            self.paraphraser.requires_grad_(False)
            self.translator = encoder(student_channels, factor_channels, translator_bn)

    def init_weights(self) -> None:
        """Read the paraphraser of the first stage, if one is named.

        Raises:
            CheckpointError: If the file cannot be read safely, or holds no paraphraser that fits.
        """
        if not self._has_weights and self.source is not None:
            load_paraphraser(self.paraphraser, self.source, self.level, self.levels)
            self._has_weights = True

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._has_weights |= any(key.startswith(f'{prefix}paraphraser.') for key in state_dict)  # a run that goes on

    def _start(self) -> None:
        self.init_weights()
        if not self._has_weights:
            print_log(
                'FTLoss: the paraphraser has random weights (paraphraser=None); expected the checkpoint of a first '
                "stage with stage='paraphraser'.",
                'current',
                logging.WARNING,
            )
            self._has_weights = True

    @full_precision
    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            student: Shape (B, student_channels, H_s, W_s).
            teacher: Shape (B, teacher_channels, H_t, W_t).

        Returns:
            Scalar.

        Raises:
            ValueError: If shapes do not fit.
        """
        check_pair('FTLoss', student, teacher, self.student_channels, self.teacher_channels)
        if self.stage == 'paraphraser':
            error = F.l1_loss if self.reconstruction == 'l1' else F.mse_loss
            return self.loss_weight * error(self.paraphraser(teacher), teacher) + 0.0 * student.sum()
        self._start()
        with torch.no_grad():
            factor_t = self.paraphraser.encoder(teacher)
        return self.loss_weight * self.distance(self.translator(student), factor_t)

    def distance(self, factor_s: Tensor, factor_t: Tensor) -> Tensor:
        """Compare two factors of shape (B, C, H, W): a scalar."""
        factor_s, factor_t = pool_to_smaller(factor_s, factor_t)
        if self.form == 'attention':
            factor_s, factor_t = (x.square().mean(1) for x in (factor_s, factor_t))
        return F.l1_loss(F.normalize(factor_s.flatten(1), dim=1), F.normalize(factor_t.flatten(1), dim=1))
