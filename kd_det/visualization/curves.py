"""Learning curves of several trainings in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ['COLOURS', 'plot_learning_curves']

#: Colours of the curves (Okabe and Ito's set, which stays apart for colour-blind readers).
COLOURS = ('#000000', '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')


def plot_learning_curves(
    curves: Mapping[str, Sequence[Mapping[str, Sequence[float]]]], path: str | Path, title: str = ''
) -> Path:
    """Draw mAP and training loss over epochs, one colour per training.

    Several runs of one training (seeds) are drawn as a line through the means and a band from the smallest to the
    largest value.

    Args:
        curves: Name → runs; each run has ``val_epoch`` and ``mAP`` (0 … 1), of equal length, and ``epoch`` and
            ``loss``, of equal length.
        path: Picture to write (its suffix names the format).
        title: Heading of the picture.

    Returns:
        The path.

    Raises:
        ValueError: There is nothing to draw, or the runs of one training differ in their epochs.
    """
    if not curves or any(not runs for runs in curves.values()):
        raise ValueError(f'no curves to draw: {curves!r}')
    figure = Figure(figsize=(11, 4.2), dpi=130, layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for (name, runs), colour in zip(curves.items(), COLOURS * (1 + len(curves) // len(COLOURS))):
        for axes, x_key, y_key, factor in ((left, 'val_epoch', 'mAP', 100), (right, 'epoch', 'loss', 1)):
            x = list(runs[0][x_key])
            if any(list(run[x_key]) != x or len(run[y_key]) != len(x) for run in runs):
                raise ValueError(f'{name}: the runs differ in {x_key}, or have another number of {y_key} values')
            y = factor * np.array([run[y_key] for run in runs], dtype=float)
            style = dict(color=colour, linestyle='--' if name == 'teacher' else '-', linewidth=1.8)
            axes.plot(x, y.mean(axis=0), label=name, marker='o', markersize=3.5, **style)
            if len(runs) > 1:
                axes.fill_between(x, y.min(axis=0), y.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    left.set(xlabel='epoch', ylabel='COCO mAP (%) on the validation images', ylim=(0, None))
    right.set(xlabel='epoch', ylabel='detection loss in training', ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.legend(frameon=False)
    if title:
        figure.suptitle(title)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
