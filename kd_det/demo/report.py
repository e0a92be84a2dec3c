"""What the demo says at its end: table, README section, curves, picture sheet."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from kd_det.visualization import markdown_table, text_table, write_between_marks

__all__ = ['MARK_BEGIN', 'MARK_END', 'demo_table', 'display_name', 'summarise', 'write_into_readme']

MARK_BEGIN = '<!-- demo table: written by `python tools/demo.py --write-readme` -->'
MARK_END = '<!-- end of the demo table -->'
HEADER = ('detector', 'mAP', 'AP50', 'AP75', 'small', 'medium', 'large', 'parameters', 'FLOPs', 'train s')
_METRICS = ('mAP', 'AP50', 'AP75', 'small', 'medium', 'large')


def display_name(name: str) -> str:
    """``plain`` → ``plain student``, ``fgd`` → ``FGD student``."""
    return name if name == 'teacher' else 'plain student' if name == 'plain' else f'{name.upper()} student'


def _spread(values: list[float]) -> dict:
    std = statistics.stdev(values) if len(values) > 1 else None
    return dict(mean=statistics.fmean(values), std=std, values=values)


def summarise(runs: list[dict]) -> dict[str, dict]:
    """Mean and sample standard deviation over seeds.

    Args:
        runs: Figures of all parts, as :class:`kd_det.bench.part.Part` returns them.

    Returns:
        Name → figure → ``mean``, ``std`` (None for one seed) and ``values``; figures are those of COCO (0 … 1), the
        training seconds, parameters and FLOPs. Methods have ``gap_closed`` too, the share of the gap between the plain
        student and the teacher that distilling closed, taken from the means (``mean``; None if there is no gap) and
        ``per_seed``.
    """
    summary: dict[str, dict] = {}
    for name in dict.fromkeys(run['name'] for run in runs):
        mine = [run for run in runs if run['name'] == name]
        summary[name] = {key: _spread([run['metrics'][key] for run in mine]) for key in _METRICS}
        summary[name]['train_seconds'] = _spread([run['train_seconds'] for run in mine])
        summary[name]['seeds'] = [run['seed'] for run in mine]
        for key in ('parameters', 'flops'):
            summary[name][key] = mine[0][key]
    teacher, plain = (summary[name]['mAP'] for name in ('teacher', 'plain'))
    teachers = teacher['values'] if len(teacher['values']) == len(plain['values']) else [teacher['mean']] * 99
    for name in summary.keys() - {'teacher', 'plain'}:
        mine = summary[name]['mAP']
        seeds = [_share(t, p, d) for t, p, d in zip(teachers, plain['values'], mine['values'])]
        summary[name]['gap_closed'] = dict(mean=_share(teacher['mean'], plain['mean'], mine['mean']), per_seed=seeds)
    return summary


def _share(teacher: float, plain: float, distilled: float) -> float | None:
    gap = teacher - plain
    return (distilled - plain) / gap if gap > 0 else None


def _count(value: float) -> str:
    """1234567 → ``1.23 M``."""
    power = min(int(math.log10(max(value, 1)) // 3), 4)
    return f'{value / 1000**power:.3g} {["", "k", "M", "G", "T"][power]}'.strip()


def _rows(summary: dict) -> list[list[str]]:
    def cell(figure: dict, factor: float = 100) -> str:
        if figure['mean'] < 0:  # COCO's -1: no such object
            return '–'
        std = '' if figure['std'] is None else f' ± {factor * figure["std"]:.1f}'
        return f'{factor * figure["mean"]:.1f}{std}'

    return [
        [
            display_name(name),
            *(cell(figures[key]) for key in _METRICS),
            _count(figures['parameters']),
            _count(figures['flops']),
            f'{figures["train_seconds"]["mean"]:.0f}',
        ]
        for name, figures in summary.items()
    ]


def _verdicts(summary: dict) -> list[str]:
    lines = []
    for name, figures in summary.items():
        if 'gap_closed' not in figures:
            continue
        gain = 100 * (figures['mAP']['mean'] - summary['plain']['mAP']['mean'])
        share = figures['gap_closed']['mean']
        part = f'{share:.0%} of the gap to the teacher' if share is not None else 'the teacher is no better'
        lines.append(f'{name.upper()}: {gain:+.1f} mAP over the plain student, {part}.')
    return lines


def demo_table(results: dict, markdown: bool = False) -> str:
    """The table of a demo, with a line for what it was measured on and one for each method's gain.

    Args:
        results: Content of ``results.json``.
        markdown: As Markdown, else as plain text.
    """
    summary, data, seeds = results['summary'], results['data'], results['settings']['seeds']
    table = (markdown_table if markdown else text_table)(HEADER, _rows(summary))
    count = f'{len(seeds)} seeds, mean ± standard deviation' if len(seeds) > 1 else f'seed {seeds[0]}'
    device = results['hardware']['gpu'] or f'CPU, threads: {results["hardware"]["threads"]}'
    if results['settings']['reuse_teacher'] and len(seeds) > 1:
        count += f', one teacher (seed {seeds[0]}) for all'
    about = (
        f'COCO mAP (%) on {data["val"]} validation images of {data["image_size"]} px after '
        f'{results["settings"]["epochs"]} epochs (teacher {results["settings"]["teacher_epochs"]}) on {data["train"]} '
        f'training images; {count}; {device}. Plain and distilled students start from the same weights and see the '
        'same batches.'
    )
    return '\n\n'.join([table, about, '\n'.join(_verdicts(summary))])


def write_into_readme(path: str | Path, text: str) -> None:
    """Replace what stands between the two marks of a README.

    Args:
        path: The README.
        text: What to put there.

    Raises:
        DataError: The file is missing, or has not both marks, in order, once each.
    """
    write_between_marks(path, MARK_BEGIN, MARK_END, text)
