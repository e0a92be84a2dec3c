"""What ``tools/benchmark.py`` measured, as Markdown: against the limits that kd_det sets itself, and in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kd_det.visualization import markdown_table

__all__ = ['BARS', 'judge', 'speed_section']

_PRECISION = {
    'fp32': 'float32 teacher',
    'bf16': 'bfloat16 teacher',
    'fp16': 'float16 teacher',
    'auto': 'teacher as by default',
}

#: Largest ratios that we allow ourselves on a CPU: step over floor by precision and method, and the rest by name.
BARS: dict[str, Any] = dict(
    floor=dict(
        fp32=dict(cwd=0.99, pkd=0.99, fgd=1.03, mgd=1.08),
        bf16=dict(cwd=0.94, pkd=0.94, fgd=0.98, mgd=1.03),
    ),
    mmrazor=0.80,
    teacher=0.90,
    memory=1.00,
    held=0.02,
    boxes=1.3,
    growth=1.1,
)


def _range(value: Mapping[str, float]) -> str:
    return f'{value["median"]:.3f} ({value["low"]:.3f} to {value["high"]:.3f})'


def _judged(what: str, bar: float, value: float, shown: str | None = None) -> tuple[str, str, str, str]:
    return what, f'{bar:.2f}', shown or f'{value:.3f}', 'met' if value <= bar else f'missed by {value / bar - 1:.1%}'


def judge(steps: Mapping[str, Any], losses: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Rows (what, bar, measured, verdict) for every bar whose figures were measured.

    Args:
        steps: Of one or more results of the tool, method → its figures.
        losses: Loss → its entries.
    """
    for precision, methods in BARS['floor'].items():
        for name, bar in methods.items():
            value = steps.get(name, {}).get('to_floor', {}).get(f'kd_det {precision}')
            if value:
                what = f'step / L, {name.upper()}, {_PRECISION[precision]}'
                yield _judged(what, bar, value['median'], _range(value))
    for name, job in steps.items():
        for pair, value in job.get('to_mmrazor', {}).items():
            precision, kind = pair.split(' / ')
            if kind == 'SingleTeacherDistill' and precision in ('fp32', 'auto'):
                what = f"step / mmrazor's {kind}, {name.upper()}, {_PRECISION[precision]}"
                yield _judged(what, BARS['mmrazor'], value['median'], _range(value))
    for name, job in steps.items():
        for precision, value in job.get('teacher', {}).items():
            if precision in ('fp32', 'auto'):
                what = f'teacher / plain extract_feat, taps of {name.upper()}, {_PRECISION[precision]}'
                yield _judged(what, BARS['teacher'], value['median'], _range(value))
    for name, job in steps.items():
        peaks = job.get('peak_mib', {})
        theirs = [value for call, value in peaks.items() if call.startswith('mmrazor')]
        for call, value in peaks.items():
            if call in ('kd_det fp32', 'kd_det auto') and theirs:
                shown = f'{value / min(theirs):.3f} ({value:.0f} / {min(theirs):.0f} MiB)'
                yield _judged(
                    f"peak memory / mmrazor's best, {name.upper()}", BARS['memory'], value / min(theirs), shown
                )
    for name in ('nst', 'fsp', 'rkd_angle'):
        for entry in losses.get(name, ()):
            if entry['varied'] is None:
                held = entry['gib']
                shown = f'{held["ours"] / held["plain"]:.4f} ({held["ours"]:.3f} / {held["plain"]:.3g} GiB)'
                what = f'{name.upper().replace("_", " ")}: memory / the plain formula’s, {_sizes(entry)}'
                yield _judged(what, BARS['held'], held['ours'] / held['plain'], shown)
    for entry in losses.get('fgd', ()):
        if entry['varied'] == 'boxes' and entry['boxes'] == 200:
            what = 'FGD alone: time with 200 boxes an image / with 5'
            yield _judged(what, BARS['boxes'], entry['to_first']['median'], _range(entry['to_first']))
    worst = max(_growths(losses), default=None)
    if worst:
        value, name, low, high = worst
        what = f'growth of time from {low}² to {high}² over that of H·W, largest of all losses on maps ({name})'
        yield _judged(what, BARS['growth'], value)


def _growths(losses: Mapping[str, Any]) -> Iterator[tuple[float, str, int, int]]:
    for name, entries in losses.items():
        sized = [entry for entry in entries if entry['varied'] == 'size']
        if len(sized) > 1:
            first, last = sized[0], sized[-1]
            area = last['size'][0] * last['size'][1] / (first['size'][0] * first['size'][1])
            yield last['to_first']['median'] / area, name, first['size'][0], last['size'][0]


def _sizes(entry: Mapping[str, Any]) -> str:
    return f'C = {entry["channels"]}, {entry["size"][0]}×{entry["size"][1]}, {entry["batch"]} images'


def speed_section(results: Sequence[Mapping[str, Any]]) -> str:
    """All tables, with the command, versions and hardware of each result.

    Args:
        results: What the tool wrote, one or more.
    """
    steps = {name: job for result in results for name, job in result['steps'].items()}
    losses = {name: entries for result in results for name, entries in result['losses'].items()}
    parts = []
    rows = list(judge(steps, losses))
    if rows:
        parts += ['### Against our own limits', markdown_table(['ratio', 'at most', 'measured', ''], rows)]
    if steps:
        parts += ['### Steps', _steps_table(steps)]
    if losses:
        parts += ['### Losses alone', _losses_table(losses)]
    parts.append('### What was measured\n\n' + '\n'.join(_provenance(result) for result in results))
    return '\n\n'.join(parts)


def _steps_table(steps: Mapping[str, Any]) -> str:
    calls = list(dict.fromkeys(call for job in steps.values() for call in job['to_floor']))
    header = ['method', 'L, ms', *(f'{call} / L' for call in calls), 'peak MiB: student', *(f'{c}' for c in calls)]
    rows = []
    for name, job in steps.items():
        floor = sum(job['seconds'][part]['median'] for part in ('student', 'extract_feat')) * 1e3
        ratios = [_range(job['to_floor'][call]) if call in job['to_floor'] else '–' for call in calls]
        peaks = job.get('peak_mib', {})
        memory = [f'{peaks[call]:.0f}' if call in peaks else '–' for call in ('student', *calls)]
        rows.append([name, f'{floor:.0f}', *ratios, *memory])
    return markdown_table(header, rows)


def _losses_table(losses: Mapping[str, Any]) -> str:
    rows = []
    for name, entries in losses.items():
        for entry in entries:
            if entry['varied'] is None:
                continue
            value = entry[entry['varied']]
            value = f'{value[0]}×{value[1]}' if entry['varied'] == 'size' else str(value)
            plain = _range(entry['to_plain']) if 'to_plain' in entry else entry['not_run']
            held = entry['held_per_input']
            rows.append(
                [name, f'{entry["varied"]} {value}', f'{entry["seconds"]["ours"]["median"] * 1e3:.1f}', plain,
                 f'{entry["to_first"]["median"]:.2f}', f'{held["ours"]:.2f}', f'{held["plain"]:.2f}']
            )  # fmt: skip
    header = ['loss', 'varied', 'ms', '× plain formula', '× first row', 'holds, × its input', 'plain holds']
    return markdown_table(header, rows)


def _provenance(result: Mapping[str, Any]) -> str:
    batch = '×'.join(map(str, result['batch']))
    shown = f'batch {batch}, {result["boxes_per_image"]} boxes an image, ' if result['steps'] else ''
    versions = ', '.join(f'{name} {value}' for name, value in result['versions'].items())
    autocast = result['autocast'] or 'none'
    return (
        f'- `{result["command"]}`: {shown}autocast {autocast}; {result["rounds"]} rounds after {result["warmup"]} of '
        f'warm-up, all calls in turn in one process; medians, and quartiles in brackets. {result["device"]}, '
        f'{result["threads"]} threads; {versions}; {result["finished"]}.'
    )
