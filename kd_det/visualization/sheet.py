"""A sheet of pictures: the same images in rows, the detectors in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

__all__ = ['match_boxes', 'picture_sheet']

GROUND_TRUTH = 'ground truth'


def _overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of (n, 4) and (m, 4) boxes, (n, m)."""
    first, second = np.reshape(first, (-1, 4)).astype(float), np.reshape(second, (-1, 4)).astype(float)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [np.clip(b[:, 2:] - b[:, :2], 0, None).prod(axis=1) for b in (first, second)]
    return both / np.maximum(areas[0][:, None] + areas[1][None] - both, 1e-9)


def _choose(boxes: np.ndarray, scores: np.ndarray, score: float, overlap: float) -> list[int]:
    """Indices of the predictions to draw, best first."""
    iou, chosen = _overlaps(boxes, boxes), []
    for i in np.argsort(-np.asarray(scores), kind='stable'):
        if scores[i] >= score and all(iou[i, j] <= overlap for j in chosen):
            chosen.append(int(i))
    return chosen


def match_boxes(
    boxes: np.ndarray, labels: np.ndarray, gt_boxes: np.ndarray, gt_labels: np.ndarray, iou: float = 0.5
) -> np.ndarray:
    """Which predictions hit a ground-truth box of their class, each of which can be hit once.

    Args:
        boxes: (n, 4) ``x1, y1, x2, y2``, best first.
        labels: (n,).
        gt_boxes: (m, 4).
        gt_labels: (m,).
        iou: Smallest overlap of a hit.

    Returns:
        (n,) bool.
    """
    overlap = _overlaps(boxes, gt_boxes)
    overlap[np.asarray(labels)[:, None] != np.asarray(gt_labels)[None]] = 0
    hit = np.zeros(len(overlap), dtype=bool)
    for i in range(len(overlap)):
        if overlap.shape[1] and overlap[i].max() >= iou:
            hit[i] = True
            overlap[:, overlap[i].argmax()] = 0
    return hit


def picture_sheet(
    images: Sequence[np.ndarray],
    ground_truth: Sequence[Mapping[str, np.ndarray]],
    predictions: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    path: str | Path,
    score: float = 0.3,
    overlap: float = 0.5,
) -> Path:
    """Draw images with ground truth in the first column and one column per detector.

    A box has the colour of its class. A solid frame overlaps a ground-truth box of its class by at least half (IoU);
    a dashed one does not. Predicted boxes carry class and score.

    Args:
        images: (H, W, 3) uint8 RGB each.
        ground_truth: Per image ``boxes`` (n, 4) and ``labels`` (n,).
        predictions: Column title → per image ``boxes``, ``labels`` and ``scores``.
        classes: Class names by label.
        palette: RGB colours by label.
        path: Picture to write.
        score: Predictions below are not drawn.
        overlap: Of predictions that overlap by more (IoU), whatever their classes, only the best is drawn.

    Returns:
        The path.

    Raises:
        ValueError: A column has another number of images.
    """
    for name, column in {GROUND_TRUTH: ground_truth, **predictions}.items():
        if len(column) != len(images):
            raise ValueError(f"column '{name}' has {len(column)} images, the sheet has {len(images)}")
    titles = [GROUND_TRUTH, *predictions]
    side = 2.9
    figure = Figure(figsize=(side * len(titles), side * len(images) + 0.75), dpi=110)
    FigureCanvasAgg(figure)
    height = side * len(images) + 0.75
    figure.subplots_adjust(0.005, 0.4 / height, 0.995, 1 - 0.35 / height, 0.02, 0.02)
    grid = figure.subplots(len(images), len(titles), squeeze=False)
    for row, (image, truth) in enumerate(zip(images, ground_truth)):
        for column, title in enumerate(titles):
            axes = grid[row, column]
            axes.imshow(image, interpolation='nearest')
            axes.set(xticks=[], yticks=[], xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
            if row == 0:
                axes.set_title(title, fontsize=13, pad=6)
            if column == 0:
                boxes, labels = truth['boxes'], truth['labels']
                texts, hit = [classes[k] for k in labels], np.ones(len(labels), dtype=bool)
            else:
                found = predictions[title][row]
                keep = _choose(found['boxes'], found['scores'], score, overlap)
                boxes, labels = np.asarray(found['boxes'])[keep], np.asarray(found['labels'])[keep]
                texts = [f'{classes[k]} {s:.2f}'.replace('0.', '.') for k, s in zip(labels, found['scores'][keep])]
                hit = match_boxes(boxes, labels, truth['boxes'], truth['labels'])
            _frames(axes, boxes, [np.array(palette[k]) / 255 for k in labels], texts, hit, image.shape)
    legend = [Patch(facecolor=np.array(c) / 255, label=n) for n, c in zip(classes, palette)]
    legend += [
        Line2D([], [], color='0.25', label='hit (IoU ≥ 0.5)'),
        Line2D([], [], color='0.25', linestyle=(0, (3, 2)), label='no hit'),
    ]
    figure.legend(handles=legend, loc='lower center', ncols=len(legend), frameon=False, fontsize=11, borderaxespad=0.3)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _frames(axes, boxes, colours, texts, hit, shape) -> None:
    """Frames and labels; a label stands above its box, or inside where there is no room, off the labels before it."""
    taken: list[tuple[float, float, float, float]] = []
    high = 0.055 * shape[0]
    for box, colour, text, good in zip(np.reshape(boxes, (-1, 4)), colours, texts, hit):
        x1, y1, x2, y2 = np.clip(box, 0, [shape[1], shape[0]] * 2) - 0.5
        for width, edge in ((3.4, 'black'), (1.8, colour)):
            style = '-' if good else (0, (9 / width, 6 / width))  # matplotlib multiplies dashes by the width
            axes.add_patch(
                Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=edge, linewidth=width, linestyle=style)
            )
        wide = 0.0285 * shape[1] * len(text) + 2
        left = float(np.clip(x1, 0, max(shape[1] - wide, 0)))
        places = [y1 - high, y2, y1, y2 - high]
        fits = [y for y in places if 0 <= y and y + high <= shape[0]] or [min(max(y1, 0), shape[0] - high)]
        free = [y for y in fits if not any(_meet((left, y, left + wide, y + high), other) for other in taken)]
        top = (free or fits)[0]
        taken.append((left, top, left + wide, top + high))
        axes.add_patch(Rectangle((left, top), wide, high, facecolor=colour, edgecolor='none', alpha=0.9, zorder=3))
        ink = 'white' if np.dot(colour, (0.299, 0.587, 0.114)) < 0.5 else 'black'
        place = dict(ha='center', va='center', zorder=4)
        axes.text(left + wide / 2, top + high / 2, text, fontsize=7.5, color=ink, **place)


def _meet(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
