"""Time and memory of a distillation step against its floor and beside mmrazor's; of losses beside their plain formulas.

In one process, in turn, with warm-up: (a) the plain student's step, (b) its teachers alone, as mmdet runs them and as
we do, (c) the distillation step of any config, or of the methods of a benchmark's setting, (d) mmrazor's step for the
same method and weights where it has it, (e) each loss alone beside its plain formula. The reference L is (a) plus the
plain ``extract_feat`` of the teachers under ``no_grad``; (a) alone for a student that teaches itself. Peak memory is
that above the networks at rest, of resident memory on a CPU and of the allocator on a GPU; each call is measured in a
process of its own, once it has run.

    python tools/benchmark.py configs/fgd_retina_r101_r50.py --size 320 320 --batch 2
    python tools/benchmark.py --setting configs/bench/coco_retina_r50_r18.py --methods all --precisions fp32 bf16
    python tools/benchmark.py --losses all --out work_dirs/losses.json
    python tools/benchmark.py --report work_dirs/*.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: Of the losses alone: what is varied, and over which values.
LOSS_SIZES, LOSS_BOXES, LOSS_INSTANCES, LOSS_BATCHES = (64, 128, 256), (5, 50, 200), (64, 128, 256), (1, 2, 4)
PRECISIONS = ('auto', 'fp32', 'bf16', 'fp16')


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='*', help='configs of a DistillDetector')
    parser.add_argument('--setting', help='a setting, a path or a name of configs/bench: its pair and methods')
    parser.add_argument('--methods', nargs='+', metavar='NAME', help='methods of the setting (default: all)')
    parser.add_argument('--losses', nargs='+', metavar='NAME', help="losses alone, by name, or 'all'")
    parser.add_argument('--precisions', nargs='+', default=['auto'], choices=PRECISIONS, help='of our teachers')
    parser.add_argument(
        '--size', type=int, nargs=2, default=(320, 320), metavar=('H', 'W'), help='of the images of a step, pixels'
    )
    parser.add_argument('--batch', type=int, default=2, help='images per step')
    parser.add_argument('--boxes', type=int, default=7, help='ground-truth boxes per image')
    parser.add_argument('--rounds', type=int, default=9, help='timed rounds')
    parser.add_argument('--warmup', type=int, default=2, help='rounds before that')
    parser.add_argument('--device', help='default: cuda if there is one, else cpu')
    parser.add_argument(
        '--autocast', choices=['bf16', 'fp16'], help='around every step; not for --losses (default: none)'
    )
    parser.add_argument('--no-mmrazor', action='store_true', help="leave out mmrazor's steps")
    parser.add_argument('--no-memory', action='store_true', help='leave out the peak memory')
    parser.add_argument('--channels', type=int, default=256, help='of the maps of losses alone (default: %(default)s)')
    parser.add_argument('--limit-gib', type=float, default=4.0, help='plain formulas that hold more are not run')
    parser.add_argument('--out', type=Path, help='write the figures as JSON, after each part')
    parser.add_argument('--plot', type=Path, help='draw the steps')
    parser.add_argument(
        '--report', type=Path, nargs='+', metavar='JSON', help='run nothing: print tables of such figures'
    )
    parser.add_argument('--write-docs', action='store_true', help='with --report: write them into docs/speed.md')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='override the configs, as tools/train.py takes them'
    )
    parser.add_argument('--only', help=argparse.SUPPRESS)  # NUMBER:CALL, the memory of one call of one job
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Raise a ConfigError for options that cannot work, before anything is built."""
    from kd_det.errors import ConfigError

    for name, least in dict(batch=1, boxes=0, rounds=1, warmup=0, channels=1).items():
        if getattr(args, name) < least:
            raise ConfigError(f'--{name}: found {getattr(args, name)}; expected {least} or more.')
    if min(args.size) < 1:
        raise ConfigError(f'--size: found {args.size[0]} {args.size[1]}; expected two numbers of pixels, 1 or more.')
    if args.plot:
        from matplotlib.backend_bases import FigureCanvasBase

        known = FigureCanvasBase.get_supported_filetypes()
        if args.plot.suffix[1:].lower() not in known:
            raise ConfigError(f'--plot: found {str(args.plot)!r}; expected a file that ends in .{", .".join(known)}.')
    if args.report:
        others = [name for name in ('configs', 'setting', 'losses') if getattr(args, name)]
        if others:
            named = ', '.join(name if name == 'configs' else f'--{name}' for name in others)
            raise ConfigError(f'--report: found with {named}; expected it without them, for it runs nothing.')
        for path in args.report:
            if not path.is_file():
                raise ConfigError(f'--report: there is no file {str(path)!r}; expected JSON that --out wrote.')


def setting_path(name: str) -> Path:
    """The file of a setting: a path, or a name of configs/bench with or without .py.

    Raises:
        ConfigError: If there is none.
    """
    from kd_det.errors import ConfigError, did_you_mean

    folder = ROOT / 'configs' / 'bench'
    given = Path(name)
    places = [given, folder / given] if given.name == name else [given]
    for path in (Path(f'{place}{suffix}') for place in places for suffix in ('', '.py')):
        if path.is_file():
            return path
    near = did_you_mean(given.stem, [path.stem for path in sorted(folder.glob('*.py'))])
    raise ConfigError(f'--setting: found {name!r}; expected a file, or a name of configs/bench.{near}')


def loss_names(given: list[str]) -> list[str]:
    """Losses with a formula, by name; a class such as ``CWDLoss`` names one too.

    Raises:
        ConfigError: For a loss without a formula.
    """
    sys.path.insert(0, str(ROOT / 'tests'))
    from reference_formulas import CASES

    from kd_det.errors import ConfigError, did_you_mean

    if given == ['all']:
        return list(CASES)
    known = {name.replace('_', ''): name for name in CASES}
    names = []
    for name in given:
        key = name.rpartition('.')[2].lower().replace('_', '').removesuffix('loss')
        if key not in known:
            expected = f'expected {", ".join(CASES)}.{did_you_mean(key, CASES)}'
            raise ConfigError(f'--losses: no formula for {name!r}; {expected}')
        names.append(known[key])
    return list(dict.fromkeys(names))


def make_jobs(args: argparse.Namespace) -> list:
    """What is timed, in order.

    Args:
        args: Of the command line.

    Returns:
        A :class:`kd_det.bench.speed.Job` for each config and method; none with ``--losses`` alone.

    Raises:
        ConfigError: For a config of no DistillDetector, a method that the setting lacks, options that do not go
            together, or nothing to do.
    """
    from mmengine.config import DictAction

    from kd_det.bench.setting import load_setting
    from kd_det.bench.speed import jobs_of_config, jobs_of_setting
    from kd_det.engine import load_config
    from kd_det.errors import ConfigError

    for pair in args.cfg_options:
        if '=' not in pair:
            raise ConfigError(f'--cfg-options: found {pair!r}; expected KEY=VALUE.')
    if args.cfg_options and args.setting:
        raise ConfigError(
            '--cfg-options: found with --setting; expected configs alone. A setting has options of its own.'
        )
    if args.autocast and args.losses:
        raise ConfigError('--autocast: found with --losses, which compute in float32; expected one of the two.')
    options = dict(pair.split('=', 1) for pair in args.cfg_options)
    options = {key: DictAction._parse_iterable(value) for key, value in options.items()}
    jobs = [job for name in args.configs for job in jobs_of_config(load_config(name, options), name)]
    if args.setting:
        methods = None if args.methods in (None, ['all']) else args.methods
        jobs += jobs_of_setting(load_setting(setting_path(args.setting)), methods)
    if args.methods and not args.setting:
        raise ConfigError('--methods: found without --setting; expected a setting of configs/bench.')
    if not jobs and not args.losses:
        raise ConfigError('configs: missing; expected configs, --setting or --losses.')
    if not jobs and args.plot:
        raise ConfigError('--plot: nothing to draw of losses alone; expected configs or --setting with it.')
    return jobs


def time_job(job: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Time all calls of one method, in turn.

    Args:
        job: The method.
        args: Of the command line, with the batch as ``data``.

    Returns:
        Medians with quartiles: ``seconds`` by call; ``to_floor``, steps over L, by call; ``teacher``, ours over the
        plain ``extract_feat``, by precision; ``to_mmrazor``, our step over mmrazor's, by ``'<precision> / <kind>'``.
        A student that teaches itself has no ``teacher`` and no seconds of ``extract_feat``: L is the student's step.

    Raises:
        ConfigError: For a model that cannot be built.
    """
    from kd_det.bench import razor
    from kd_det.bench.speed import Steps, interleave, ratio, spread

    kinds = () if args.no_mmrazor else razor.KINDS
    steps = Steps(job, args.data, args.precisions, kinds)
    steps.try_mmrazor()
    for name, reason in steps.failed.items():
        print(f'{name}: left out for {job.name}, {reason}')
    kinds = [kind for kind in kinds if f'mmrazor {kind}' in steps.calls]
    seconds = interleave(steps.calls, args.rounds, args.warmup, args.device)
    floor = [seconds[name] for name in ('student', 'extract_feat') if name in seconds]
    found: dict[str, Any] = dict(seconds={name: spread(times) for name, times in seconds.items()}, to_floor={})
    for name, times in seconds.items():
        if name.startswith(('kd_det', 'mmrazor')):
            found['to_floor'][name] = ratio(times, *floor)
    for precision in steps.precisions:
        ours = seconds[f'kd_det {precision}']
        for kind in kinds:
            found.setdefault('to_mmrazor', {})[f'{precision} / {kind}'] = ratio(ours, seconds[f'mmrazor {kind}'])
        if f'teacher {precision}' in seconds:
            found.setdefault('teacher', {})[precision] = ratio(seconds[f'teacher {precision}'], seconds['extract_feat'])
    return found


def add_memory(found: dict[str, Any], args: argparse.Namespace, number: int) -> None:
    """Measure the memory of all calls of a job, each in a process of its own.

    Args:
        found: Figures of the job. ``peak_mib`` and ``rest_mib`` by call are added, what
            :func:`kd_det.bench.speed.peak_mib` returns, and ``memory_error``, the last line of a process that failed.
        args: Of the command line, whose words are ``argv``.
        number: Of the job.
    """
    found.update(peak_mib={}, rest_mib={}, memory_error={})
    for name in (name for name in found['seconds'] if not name.startswith('teacher')):
        command = [sys.executable, str(Path(__file__).resolve()), *args.argv, '--only', f'{number}:{name}']
        child = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        if child.returncode:
            last = child.stderr.strip().splitlines()[-1:]
            found['memory_error'][name] = last[0] if last else f'exit status {child.returncode}'
        else:
            found['peak_mib'][name], found['rest_mib'][name] = json.loads(child.stdout.strip().splitlines()[-1])


def show_job(name: str, found: dict[str, Any]) -> None:
    from kd_det.bench.speed_report import peak_text, range_text

    print(f'\n{name}')
    for call, seconds in found['seconds'].items():
        words = [f'  {call:28s} {seconds["median"] * 1e3:9.1f} ms']
        if call in found['to_floor']:
            words.append(f'{range_text(found["to_floor"][call])} x L')
        if call.startswith('teacher'):
            words.append(f'{range_text(found["teacher"][call.split()[1]])} x extract_feat')
        for pair, value in found.get('to_mmrazor', {}).items():
            precision, kind = pair.split(' / ')
            if call == f'kd_det {precision}':
                words.append(f"{range_text(value)} x mmrazor's {kind}")
        if call in found.get('peak_mib', {}):
            words.append(f'{peak_text(found, call)} MiB')
        if call in found.get('memory_error', {}):
            words.append(f'memory not measured: {found["memory_error"][call]}')
        print(', '.join(words), flush=True)


def time_losses(args: argparse.Namespace, save: Any) -> dict[str, list[dict[str, Any]]]:
    """Each loss beside its plain formula, over what changes its work; all values of one thing in turn.

    Args:
        args: Of the command line.
        save: Called with all that was found so far, after each loss.

    Returns:
        Loss → its entries, one for each value of what is varied: the value, ``seconds`` of both, ``to_plain`` and
        ``to_first`` (the first value) as medians with quartiles, ``held_per_input`` and ``gib`` that both hold, and
        ``not_run`` if the plain formula was too large. The last entry varies nothing: its memory is counted alone.
    """
    import torch
    from reference_formulas import CASES

    from kd_det.bench.speed import interleave, ratio, spread

    found: dict[str, list[dict[str, Any]]] = {}
    usual = dict(size=(64, 64), boxes=5, instances=128, batch=1)
    over = dict(size=[(n, n) for n in LOSS_SIZES], boxes=LOSS_BOXES, instances=LOSS_INSTANCES, batch=LOSS_BATCHES)
    for name in args.losses:
        print(f'\n{name}')
        found[name] = []
        for key in CASES[name].scales:
            entries, calls = [], {}
            for value in over[key]:
                given = {k: v for k, v in {**usual, key: value}.items() if k in CASES[name].scales}
                given.update(channels=args.channels, device=args.device, dtype=torch.float32)
                entry = dict(varied=key, **{k: v for k, v in given.items() if k not in ('device', 'dtype')})
                entry |= _memory(CASES[name], given)
                pair = CASES[name].make(**given)
                calls[len(entries), 'ours'] = pair.ours.step
                if entry['gib']['plain'] <= args.limit_gib:
                    calls[len(entries), 'plain'] = pair.plain.step
                else:
                    entry['not_run'] = f'the plain formula holds {entry["gib"]["plain"]:.1f} GiB'
                entries.append(entry)
            seconds = interleave(calls, args.rounds, args.warmup, args.device)
            for number, entry in enumerate(entries):
                sides = [side for side in ('ours', 'plain') if (number, side) in seconds]
                entry['seconds'] = {side: spread(seconds[number, side]) for side in sides}
                entry['to_first'] = ratio(seconds[number, 'ours'], seconds[0, 'ours'])
                if 'plain' in sides:
                    entry['to_plain'] = ratio(*(seconds[number, side] for side in sides))
                show_loss(key, entry)
            found[name] += entries
        at = dict(size=(100, 168), channels=256, batch=2)  # whose memory is counted, not used
        found[name].append(dict(varied=None, **at, **_memory(CASES[name], dict(at, device=args.device))))
        save(found)
    return found


def _memory(case: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What both ways hold beyond their inputs, counted on tensors without numbers where no number is asked for."""
    from reference_formulas.measure import fake, held, input_bytes
    from torch._subclasses.fake_tensor import DataDependentOutputException

    held_bytes = {}
    for side in ('ours', 'plain'):
        try:
            with fake(case.make(**given)) as shapes:
                size, held_bytes[side] = input_bytes(shapes.ours), held(getattr(shapes, side).step)
        except DataDependentOutputException:  # boxes that are painted one by one
            held_bytes[side] = held(getattr(case.make(**given), side).step)
    per_input = {side: found / size for side, found in held_bytes.items()}
    return dict(held_per_input=per_input, gib={side: found / 2**30 for side, found in held_bytes.items()})


def show_loss(key: str, entry: dict[str, Any]) -> None:
    from kd_det.bench.speed_report import range_text

    words = [f'  {key} {entry[key]}: {entry["seconds"]["ours"]["median"] * 1e3:.1f} ms']
    if 'to_plain' in entry:
        words.append(f'{range_text(entry["to_plain"])} x the plain formula')
    else:
        words.append(f'{entry["not_run"]} and was not run')
    memory = entry['held_per_input']
    words.append(f'holds {memory["ours"]:.2f} x its input, plain {memory["plain"]:.2f} x')
    print('; '.join(words), flush=True)


def plot(result: dict[str, Any], path: Path) -> None:
    """Steps over the floor, as bars with quartiles."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    jobs = result['steps']
    calls = [call for job in jobs.values() for call in job['to_floor']]
    calls = list(dict.fromkeys(calls))
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.22 * len(jobs) * len(calls)), layout='constrained')
    height = 0.8 / len(calls)
    for i, call in enumerate(calls):
        rows = [(y, job['to_floor'][call]) for y, job in enumerate(jobs.values()) if call in job['to_floor']]
        middle = [value['median'] for _, value in rows]
        error = [[v['median'] - v['low'] for _, v in rows], [v['high'] - v['median'] for _, v in rows]]
        axes.barh([y + i * height for y, _ in rows], middle, height, xerr=error, label=call)
    axes.axvline(1, color='black', linewidth=0.8)
    axes.set_yticks([y + 0.4 - height / 2 for y in range(len(jobs))], list(jobs))
    axes.invert_yaxis()
    axes.set_xlabel("step / (plain student's step + teachers' extract_feat)")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def report(args: argparse.Namespace) -> None:
    """Tables of results that are there, printed or written into docs/speed.md."""
    from kd_det.bench.speed_report import speed_section
    from kd_det.errors import ConfigError
    from kd_det.visualization.marks import write_between_marks

    results = []
    for path in args.report:
        try:
            results.append(json.loads(path.read_text()))
        except ValueError:
            results.append(None)
        if not isinstance(results[-1], dict) or not {'steps', 'losses', 'batch'} <= results[-1].keys():
            raise ConfigError(f'--report: {str(path)!r} holds no results of this tool; expected JSON that --out wrote.')
    text = speed_section(results)
    if args.write_docs:
        write_between_marks(ROOT / 'docs' / 'speed.md', '<!-- speed:begin -->', '<!-- speed:end -->', text)
    else:
        print(text)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    args.argv = list(sys.argv[1:] if argv is None else argv)
    check(args)
    if args.report:
        report(args)
        return
    import torch
    from mmdet.utils import register_all_modules

    import kd_det  # noqa: F401, registers everything
    from kd_det.bench.machine import processor, versions
    from kd_det.bench.speed import Batch, Steps, peak_mib

    register_all_modules(init_default_scope=True)
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    dtype = dict(bf16=torch.bfloat16, fp16=torch.float16).get(args.autocast)
    jobs = make_jobs(args)
    args.losses = loss_names(args.losses or [])
    args.data = Batch(tuple(args.size), args.batch, args.boxes, args.device, dtype) if jobs else None
    if args.only:
        number, _, name = args.only.partition(':')
        kinds = [name.split()[1]] if name.startswith('mmrazor') else []
        steps = Steps(jobs[int(number)], args.data, args.precisions, kinds, name)
        print(json.dumps(peak_mib(steps.calls[name], args.device)))
        return
    result: dict[str, Any] = dict(
        batch=[args.batch, 3, *args.size], boxes_per_image=args.boxes, rounds=args.rounds, warmup=args.warmup,
        autocast=args.autocast, device=torch.cuda.get_device_name() if args.device.startswith('cuda') else processor(),
        device_type=torch.device(args.device).type, threads=torch.get_num_threads(), versions=versions(),
        setting=args.setting, command=shlex.join(['python', 'tools/benchmark.py', *args.argv]),
        finished=None, steps={}, losses={},
    )  # fmt: skip

    def save(losses: dict[str, Any] | None = None) -> None:
        result['losses'] = losses or result['losses']
        result['finished'] = datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=1) + '\n')

    where = f'{result["device"]}, {result["threads"]} threads, torch {torch.__version__}'
    if jobs:
        print(f'{args.batch} x 3 x {args.size[0]} x {args.size[1]}, {args.boxes} boxes an image; {where}')
    if args.losses:
        swept = dict(size=LOSS_SIZES, boxes=LOSS_BOXES, instances=LOSS_INSTANCES, batch=LOSS_BATCHES)
        values = ', '.join(f'{name} {"/".join(map(str, each))}' for name, each in swept.items())
        print(f'Losses alone, {args.channels} channels, over {values} where it matters to them; {where}')
    for number, job in enumerate(jobs):
        found = result['steps'][job.name] = time_job(job, args)
        save()
        if not args.no_memory:
            add_memory(found, args, number)
            save()
        show_job(job.name, found)
    if args.losses:
        result['losses'] = time_losses(args, save)
    save()
    if args.plot:
        plot(result, args.plot)


if __name__ == '__main__':
    # waiting threads sleep: spinning ones make a step ten times as slow as soon as anything else runs on the machine
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    from kd_det.engine import guarded

    sys.exit(guarded(main))
