"""What ``tools/benchmark.py`` measured, as Markdown: against the limits that kd_det sets itself, and in full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_det.errors import ConfigError
from kd_det.visualization import markdown_table

#: What a result must have measured, at least, to be judged: batch of the steps, channels of losses alone, rounds.
_BATCH, _CHANNELS, _ROUNDS = [2, 3, 320, 320], 256, 7

__all__ = ['BARS', 'judge', 'peak_text', 'range_text', 'speed_section']

_PRECISION = {
    'fp32': 'float32 teacher',
    'bf16': 'bfloat16 teacher',
}

#: Largest ratios that we allow ourselves on a CPU, without autocast: step over floor by precision and method, and the
#: rest by name. The teacher's is that of the methods under ``floor``, which read the neck alone.
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


_MMRAZOR = (
    "mmrazor's `SingleTeacherDistill` runs the teacher's whole forward in every step, head and losses included; its "
    '`FpnTeacherDistill` runs backbone and neck alone, as `extract_feat` does.'
)


def range_text(value: Mapping[str, float]) -> str:
    """A median, and its quartiles in brackets."""
    return f'{value["median"]:.3f} ({value["low"]:.3f} to {value["high"]:.3f})'


def _judged(what: str, bar: float, value: float, shown: str | None = None) -> tuple[str, str, str, str]:
    return what, f'{bar:.2f}', shown or f'{value:.3f}', 'met' if value <= bar else f'missed by {value / bar - 1:.1%}'


def _of(figures: Mapping[str, Any], name: str, precision: str) -> Any:
    """A figure by the teacher's precision, None without it; ``'auto'`` is fp32 on a CPU without autocast."""
    names = [precision, 'auto'] if precision == 'fp32' else [precision]
    return next((figures[name.format(each)] for each in names if name.format(each) in figures), None)


def _title(name: str) -> str:
    """A method in capitals, or the stem of a config."""
    return Path(name).stem if name.endswith('.py') else name.upper()


def judge(steps: Mapping[str, Any], losses: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Rows (what, bar, measured, verdict) for every bar whose figures were measured.

    Args:
        steps: Of results on a CPU without autocast, method → its figures.
        losses: Of results on a CPU, loss → its entries.
    """
    plain = _PRECISION['fp32']
    for precision, methods in BARS['floor'].items():
        for name, bar in methods.items():
            value = _of(steps.get(name, {}).get('to_floor', {}), 'kd_det {}', precision)
            if value:
                what = f'step / L, {name.upper()}, {_PRECISION[precision]}'
                yield _judged(what, bar, value['median'], range_text(value))
    for name, job in steps.items():
        value = _of(job.get('to_mmrazor', {}), '{} / SingleTeacherDistill', 'fp32')
        if value:
            what = f"step / mmrazor's SingleTeacherDistill, {_title(name)}, {plain}"
            yield _judged(what, BARS['mmrazor'], value['median'], range_text(value))
    for name in BARS['floor']['fp32']:
        value = _of(steps.get(name, {}).get('teacher', {}), '{}', 'fp32')
        if value:
            what = f'teacher / plain extract_feat, taps of {name.upper()}, {plain}'
            yield _judged(what, BARS['teacher'], value['median'], range_text(value))
    for name, job in steps.items():
        rest = job.get('rest_mib', {})
        peaks = {call: peak + rest.get(call, 0.0) for call, peak in job.get('peak_mib', {}).items()}
        ours = _of(peaks, 'kd_det {}', 'fp32')
        theirs = [value for call, value in peaks.items() if call.startswith('mmrazor')]
        if ours is not None and theirs:
            best = min(theirs)
            shown = f'{ours / best:.3f} ({ours:.0f} / {best:.0f} MiB)'
            what = f"peak memory, networks included / mmrazor's best, {_title(name)}"
            yield _judged(what, BARS['memory'], ours / best, shown)
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
            yield _judged(what, BARS['boxes'], entry['to_first']['median'], range_text(entry['to_first']))
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

    Results of one device and autocast share their tables. Judged are those on a CPU with 7 rounds or more: of steps
    those on 2 images of 320×320 without an autocast, of losses alone those with 256 channels.

    Args:
        results: What the tool wrote, one or more.

    Raises:
        ConfigError: If two results that would share a table have the same method or loss.
    """
    places: dict[tuple[str, str | None], list[Mapping[str, Any]]] = {}
    for result in results:
        places.setdefault((result['device'], result['autocast'] if result['steps'] else None), []).append(result)
    parts = []
    for (device, autocast), group in places.items():
        where = f': {device}' + (f', autocast {autocast}' if autocast else '') if len(places) > 1 else ''
        steps, losses = _merged(group, 'steps'), _merged(group, 'losses')
        rows = list(judge(*_judgeable(group)))
        if rows:
            parts += [f'### Against our own limits{where}', markdown_table(['ratio', 'at most', 'measured', ''], rows)]
        if steps:
            parts += [f'### Steps{where}', _steps_table(steps)]
            if any(call.startswith('mmrazor') for job in steps.values() for call in job['seconds']):
                parts.append(_MMRAZOR)
        if losses:
            parts += [f'### Losses alone{where}', _losses_table(losses)]
    parts.append('### What was measured\n\n' + '\n'.join(_provenance(result) for result in results))
    return '\n\n'.join(parts)


def _merged(results: Sequence[Mapping[str, Any]], part: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    whose: dict[str, str] = {}
    for result in results:
        for name, figures in result[part].items():
            if name in found:
                raise ConfigError(
                    f'--report: {part} of {name!r} are in two results, of `{whose[name]}` and of '
                    f'`{result["command"]}`; expected each name once for a device and autocast. Report one of them.'
                )
            found[name], whose[name] = figures, result['command']
    return found


def _judgeable(results: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Steps and losses alone that were measured as the limits are meant."""
    results = [result for result in results if _on_cpu(result) and result['rounds'] >= _ROUNDS]
    steps = [result for result in results if result['batch'] == _BATCH and not result['autocast']]
    losses = _merged(results, 'losses')
    losses = {name: entries for name, entries in losses.items() if all(e['channels'] == _CHANNELS for e in entries)}
    return _merged(steps, 'steps'), losses


def _on_cpu(result: Mapping[str, Any]) -> bool:
    """Whether it was measured on a CPU; older results tell by the name of their device alone."""
    gpu = any(word in result['device'] for word in ('NVIDIA', 'Tesla', 'GPU'))
    return result.get('device_type', 'cuda' if gpu else 'cpu') == 'cpu'


def _steps_table(steps: Mapping[str, Any]) -> str:
    calls = list(dict.fromkeys(call for job in steps.values() for call in job['to_floor']))
    pairs = list(dict.fromkeys(pair for job in steps.values() for pair in job.get('to_mmrazor', {})))
    measured = ('student', *calls) if any(job.get('peak_mib') for job in steps.values()) else ()
    header = ['method', 'student, ms', 'extract_feat, ms', 'L, ms', *(f'{call} / L' for call in calls)]
    header += ['kd_det {} / mmrazor {}'.format(*pair.split(' / ')) for pair in pairs]
    header += [f'peak MiB: {call}' for call in measured]
    rows = []
    for name, job in steps.items():
        parts = [job['seconds'][part]['median'] * 1e3 for part in ('student', 'extract_feat') if part in job['seconds']]
        ratios = [range_text(job['to_floor'][call]) if call in job['to_floor'] else '–' for call in calls]
        ratios += [range_text(job['to_mmrazor'][pair]) if pair in job.get('to_mmrazor', {}) else '–' for pair in pairs]
        memory = [peak_text(job, call) or '–' for call in measured]
        student, *teachers, floor = (f'{value:.{0 if value >= 100 else 1}f}' for value in (*parts, sum(parts)))
        rows.append([name, student, *(teachers or ['–']), floor, *ratios, *memory])
    return markdown_table(header, rows)


def peak_text(job: Mapping[str, Any], call: str) -> str:
    """The peak of a call above the networks at rest, and in brackets what they hold, MiB; empty if not measured."""
    if call not in job.get('peak_mib', {}):
        return ''
    rest = job.get('rest_mib', {}).get(call)
    return f'{job["peak_mib"][call]:.0f}' + (f' ({rest:.0f})' if rest is not None else '')


def _losses_table(losses: Mapping[str, Any]) -> str:
    rows = []
    for name, entries in losses.items():
        for entry in entries:
            if entry['varied'] is None:
                continue
            value = entry[entry['varied']]
            value = f'{value[0]}×{value[1]}' if entry['varied'] == 'size' else str(value)
            plain = range_text(entry['to_plain']) if 'to_plain' in entry else entry['not_run']
            held = entry['held_per_input']
            rows.append(
                [name, f'{entry["varied"]} {value}', f'{entry["seconds"]["ours"]["median"] * 1e3:.1f}', plain,
                 f'{entry["to_first"]["median"]:.2f}', f'{held["ours"]:.2f}', f'{held["plain"]:.2f}']
            )  # fmt: skip
    header = ['loss', 'varied', 'ms', '× plain formula', '× first row', 'holds, × its input', 'plain holds']
    return markdown_table(header, rows)


def _provenance(result: Mapping[str, Any]) -> str:
    batch = '×'.join(map(str, result['batch']))
    steps = f'batch {batch}, {result["boxes_per_image"]} boxes an image, autocast {result["autocast"] or "none"}; '
    shown = steps if result['steps'] else ''
    versions = ', '.join(f'{name} {value}' for name, value in result['versions'].items())
    return (
        f'- `{result["command"]}`: {shown}{result["rounds"]} rounds after {result["warmup"]} of '
        f'warm-up, all calls in turn in one process; medians, and quartiles in brackets. {result["device"]}, '
        f'{result["threads"]} threads; {versions}; {result["finished"]}.'
    )
