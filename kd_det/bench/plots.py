"""Two pictures of a setting: gains with intervals, and mAP over cost."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from kd_det.bench.catalogue import FAMILIES
from kd_det.bench.figures import Column, MethodRow, SettingFigures
from kd_det.checkpoint import atomic_path
from kd_det.visualization.curves import COLOURS

__all__ = ['pareto_front', 'place_labels', 'plot_gains', 'plot_pareto']

_PUBLISHED, _TUNED = COLOURS[2], COLOURS[1]
_FAMILY_COLOURS = dict(zip(FAMILIES, (*(COLOURS[i] for i in (1, 3, 2, 4, 5)), '#999999', COLOURS[6]), strict=True))

Box = tuple[float, float, float, float]


def _save(figure: Figure, path: str | Path) -> Path:
    """A PNG of 128 colours, which is enough for lines and letters and much smaller."""
    memory = io.BytesIO()
    figure.savefig(memory, format='png')
    path = Path(path)
    with atomic_path(path) as temporary:
        Image.open(memory).convert('RGB').quantize(128).save(temporary, format='PNG', optimize=True)
    return path


def _figure(width: float, height: float) -> tuple[Figure, object]:
    figure = Figure(figsize=(width, height), dpi=110, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[['top', 'right']].set_visible(False)
    return figure, axes


def _title(figures: SettingFigures) -> str:
    return ', '.join(str(figures.pair[key]) for key in ('title', 'data') if figures.pair.get(key)) or figures.name


def plot_gains(figures: SettingFigures, path: str | Path) -> Path:
    """Paired differences to the plain student with their intervals, published and tuned beside each other, best first.

    A line marks the longer plain run. A hollow mark has no interval (one seed). The axis shows all means; intervals may
    go beyond it. A method that diverged with each seed has a word in place of a mark.

    Args:
        figures: Of one setting.
        path: PNG to write.

    Returns:
        The path.
    """
    rows = [row for row in figures.rows if any(column.gain for column in row.columns)]
    figure, axes = _figure(8.2, 1.7 + 0.3 * max(len(rows), 3))
    kinds = (('published', 'published weights', _PUBLISHED, 's', -0.17), ('tuned', 'tuned', _TUNED, 'o', 0.17))
    means = [0.0]
    for name, label, colour, marker, shift in kinds:
        for place, row in enumerate(rows):
            column: Column | None = getattr(row, name)
            if column is None or column.gain is None:
                continue
            found = column.gain
            if len(column.diverged) == len(column.values):
                style = dict(color=colour, fontsize=8, va='center', transform=axes.get_yaxis_transform())
                axes.text(0.01, place + shift, 'diverged with each seed', **style)
                continue
            means.append(100 * found.mean)
            axes.errorbar(
                100 * found.mean,
                place + shift,
                xerr=None if found.half is None else 100 * found.half,
                color=colour,
                marker=marker,
                markersize=5,
                markerfacecolor='white' if found.half is None else colour,
                linewidth=1.4,
                capsize=2.5,
            )
        axes.plot([], [], color=colour, marker=marker, markersize=5, linewidth=1.4, label=label)
    axes.axvline(0, color='black', linewidth=1)
    longer = figures.students.get('plain_longer')
    if longer is not None and longer.gain is not None:
        label = 'plain, longer' if longer.cost is None else f'plain, {longer.cost:.3g} × as long'
        axes.axvline(100 * longer.gain.mean, color='black', linestyle='-.', linewidth=1, label=label)
        means.append(100 * longer.gain.mean)
    gap = figures.gap
    if gap is not None and 0 < 100 * gap <= 1.6 * max(means):
        axes.axvline(100 * gap, color='0.4', linestyle='--', linewidth=1, label='teacher')
        axes.axvline(50 * gap, color='0.4', linestyle=':', linewidth=1, label='half of the gap')
        means.append(100 * gap)
    room = 0.25 * (max(means) - min(means)) or 1.0
    axes.set(
        xlim=(min(means) - room, max(means) + room),
        ylim=(max(len(rows), 1) - 0.4, -0.6),
        yticks=range(len(rows)),
        yticklabels=[row.method.title for row in rows],
        xlabel='mAP minus that of the plain student, points; 95 % intervals of paired seeds',
    )
    axes.grid(axis='x', alpha=0.3)
    figure.suptitle(_title(figures), fontsize=11)
    figure.legend(*axes.get_legend_handles_labels(), loc='outside lower center', ncols=4, frameon=False, fontsize=9)
    return _save(figure, path)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats: none is as cheap and better, or cheaper and as good.

    Args:
        points: Cost (less is better) and value (more is better).

    Returns:
        Indices by cost.
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def place_labels(
    points: Sequence[tuple[float, float]], sizes: Sequence[tuple[float, float]], frame: Box, gap: float = 6
) -> list[Box]:
    """Where labels stand beside their points so that they overlap neither each other nor a point.

    Each label in turn takes the nearest of its places on rings around its point that is free; where none is, the one
    with the least overlap.

    Args:
        points: x, y of each point, in pixels.
        sizes: Width and height of each label.
        frame: x0, y0, x1, y1 that labels stay within.
        gap: Distance from the point to the first ring, and radius kept free around points.

    Returns:
        x0, y0, x1, y1 of each label.
    """
    radius = gap / 2
    dots = [(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    placed: list[Box] = []
    for (x, y), (width, height) in zip(points, sizes):
        best, least = None, math.inf
        for ring, step in itertools.product(range(14), range(16)):
            angle, away = math.pi * (2 - step) / 8, gap + ring * 0.8 * height
            centre_x = x + math.cos(angle) * (away + width / 2)
            centre_y = y + math.sin(angle) * (away + height / 2)
            left = min(max(centre_x - width / 2, frame[0]), frame[2] - width)
            bottom = min(max(centre_y - height / 2, frame[1]), frame[3] - height)
            box = (left, bottom, left + width, bottom + height)
            overlap = sum(_overlap(box, other) for other in itertools.chain(placed, dots))
            if overlap < least:
                best, least = box, overlap
            if overlap == 0:
                break
        placed.append(best)
    return placed


def _overlap(a: Box, b: Box) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _height(row: MethodRow, figures: SettingFigures) -> float:
    """The plain student's mean mAP plus the row's paired gain, %, which missing seeds do not shift."""
    return 100 * (figures.plain.mAP.mean + figures.pick(row).gain.mean)


def plot_pareto(figures: SettingFigures, path: str | Path) -> Path:
    """mAP over training time, each method once, with the front of what nothing beats.

    All methods are tuned, or all have published weights (``SettingFigures.basis``). The height is the plain student's
    mean plus the paired gain, so that it agrees with the table's differences where seeds are
    missing. Methods that diverged with each seed are left out.

    Args:
        figures: Of one setting.
        path: PNG to write.

    Returns:
        The path.
    """
    figure, axes = _figure(8.2, 5.6)
    names: list[str] = []
    points: list[tuple[float, float]] = []
    for row in figures.rows:
        column = figures.pick(row)
        if column is None or None in (column.gain, column.cost) or len(column.diverged) == len(column.values):
            continue
        names.append(row.method.title)
        points.append((column.cost, _height(row, figures)))
        colour = _FAMILY_COLOURS[row.method.family]
        label = FAMILIES[row.method.family]
        known = axes.get_legend_handles_labels()[1]
        axes.plot(*points[-1], 'o', color=colour, markersize=6, label=None if label in known else label)
    for role, title in (('plain', 'plain'), ('plain_longer', 'plain, longer'), ('self_distilled', 'self-distilled')):
        column = figures.students.get(role)
        if column is not None and None not in (column.gain, column.cost):
            names.append(title)
            points.append((column.cost, 100 * (figures.plain.mAP.mean + column.gain.mean)))
            axes.plot(*points[-1], 'D', color='black', markersize=5)
    front = pareto_front(points)
    if len(front) > 1:
        corners = [points[i] for i in front]
        axes.step(*zip(*corners), where='post', color='0.35', linewidth=1.2, zorder=0, label='front: nothing beats it')
    if 'trained' in figures.teachers and points:
        top = 100 * figures.teachers['trained']
        low, high = min(y for _, y in points), max(y for _, y in points)
        if top <= high + 1.5 * (high - low):
            axes.axhline(top, color='0.4', linestyle='--', linewidth=1, label='teacher')
    axes.margins(0.12, 0.12)
    columns = [figures.pick(row) for row in figures.rows]
    rough = ' (rough, of whole runs)' if any(c is not None and c.cost_from == 'runs' for c in columns) else ''
    weights = 'tuned' if figures.basis == 'tuned' else 'published weights'
    axes.set(
        xlabel=f'training time, times that of the plain student{rough}; methods: {weights}',
        ylabel='mAP of the plain student + paired gain (%)',
    )
    axes.grid(alpha=0.3)
    figure.suptitle(_title(figures), fontsize=11)
    handles = axes.get_legend_handles_labels()
    if handles[0]:
        figure.legend(*handles, loc='outside lower center', ncols=4, frameon=False, fontsize=9)
    if points:
        _label(figure, axes, names, points, set(front))
    return _save(figure, path)


def _label(figure: Figure, axes, names: Sequence[str], points: Sequence[tuple[float, float]], front: set[int]) -> None:
    """Write names beside points; those of the front are bold; a thin line leads to a name that stands apart."""
    figure.draw_without_rendering()
    figure.set_layout_engine('none')
    renderer = figure.canvas.get_renderer()
    halo = [withStroke(linewidth=2.5, foreground='white')]
    texts = [
        axes.text(0, 0, name, fontsize=8.5, fontweight='bold' if i in front else 'normal', zorder=4, path_effects=halo)
        for i, name in enumerate(names)
    ]
    boxes = [text.get_window_extent(renderer) for text in texts]
    pixels = [tuple(point) for point in axes.transData.transform(points)]
    frame = tuple(axes.get_window_extent(renderer).extents)
    back = axes.transData.inverted()
    for text, (x, y), box in zip(
        texts, pixels, place_labels(pixels, [(b.width + 2, b.height + 1) for b in boxes], frame)
    ):
        text.set(position=back.transform(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)), ha='center', va='center')
        nearest = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
        if math.dist(nearest, (x, y)) > 10:
            ends = back.transform([(x, y), nearest])
            axes.plot(*zip(*ends), color='0.6', linewidth=0.6, zorder=1, scalex=False, scaley=False)
