"""Compare distillation methods at equal budget: same steps, initial weights, data order and inheritance per seed.

Usage: python tools/kd_bench.py configs/bench/synthetic_retina.py [more settings] [--jobs 2] [--write-readme]

A setting names a teacher, a student, a data set and methods (docs/benchmark.md). Without a file:
python tools/kd_bench.py --teacher CONFIG [--teacher-checkpoint FILE] --student CONFIG --methods fgd mgd --seeds 0 1 2

Finished runs are kept in one JSON line each and are not run again; the same command goes on after any stop.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

#: Options that are keys of a setting, too; those of methods first.
_CONTROLS = ('self_distilled', 'random_teacher', 'shuffled_teacher')
_KEYS = ('teacher_checkpoint', 'seeds', 'inherit', 'data_root', 'longer', 'as_long_as_teacher', *_CONTROLS)
ROOT = Path(__file__).resolve().parents[1]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('settings', nargs='*', type=Path, help='settings: files with bench = dict(…)')
    parser.add_argument('--teacher', help="the teacher's config, instead of a setting")
    parser.add_argument('--teacher-checkpoint', help='its weights; it is trained first if there are none')
    parser.add_argument('--student', help="the student's config, whose data and schedule are used for all")
    parser.add_argument(
        '--name', help='name of the comparison that --teacher and --student make (default: from theirs)'
    )
    parser.add_argument(
        '--methods',
        nargs='+',
        help='fragments of configs/_base_/distill, or several as one: pkd+crosskd; default: those of the setting',
    )
    parser.add_argument('--seeds', nargs='+', type=int, help='seeds of weights and data order')
    parser.add_argument('--weights', choices=['published', 'tuned', 'both'], default='both', help='default: both')
    parser.add_argument('--tune', nargs='+', type=float, metavar='FACTOR', help='factors to tune over, 1 among them')
    parser.add_argument('--inherit', nargs='+', help="parts of the student that start from the teacher's weights")
    parser.add_argument(
        '--self-distilled',
        metavar='METHOD',
        help='the method by which the student also learns from a trained copy of itself; without a setting the first '
        "of --methods that can, or 'none'",
    )
    parser.add_argument(
        '--longer', type=float, metavar='TIMES', help='also a plain student trained for so many times the schedule'
    )
    parser.add_argument(
        '--as-long-as-teacher',
        action='store_true',
        default=None,
        help='also a plain student trained for as long as it, unless its weights are given',
    )
    parser.add_argument(
        '--random-teacher', nargs='+', metavar='METHOD', help='methods that also learn from a teacher of random weights'
    )
    parser.add_argument(
        '--shuffled-teacher',
        nargs='+',
        metavar='METHOD',
        help='methods that also learn from a teacher trained on shuffled labels',
    )
    parser.add_argument('--jobs', type=int, default=1, help='processes side by side, on each GPU if there are some')
    parser.add_argument('--gpus', nargs='+', default=[], metavar='N', help='GPUs to use (default: the CPU)')
    parser.add_argument(
        '--threads', type=int, help='of each process (default: cores / processes); OMP_NUM_THREADS is not read'
    )
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/bench'), help='weights, logs and reports; a new one runs anew'
    )
    parser.add_argument(
        '--results', type=Path, nargs='+', help='the JSON lines (default: <work-dir>/results.jsonl); several to report'
    )
    parser.add_argument('--data-root', metavar='DIR', help="folder of the data set (default: the setting's)")
    parser.add_argument(
        '--only', nargs='+', default=[], metavar='CELL', help='run only these cells: fgd, fgd/x5/seed0, teacher, …'
    )
    parser.add_argument(
        '--dry-run',
        action='store_true',
        help='list what would run, check it, and stop; draws a synthetic set, and writes the lists of the holdout',
    )
    parser.add_argument('--no-check', action='store_true', help='do not build each method before anything runs')
    parser.add_argument(
        '--report',
        action='store_true',
        help='run nothing: report what the results hold, all of it or the settings that are named',
    )
    parser.add_argument('--write-readme', action='store_true', help='write README.md and docs/results from the results')
    parser.add_argument('--repo', type=Path, default=ROOT, help='where --write-readme finds README.md and docs')
    args = parser.parse_args(argv)
    args.results = args.results or [args.work_dir / 'results.jsonl']
    wrong = _wrong(args)
    if wrong:
        parser.exit(2, f'error: {wrong}\n')
    return args


def _wrong(args: argparse.Namespace) -> str | None:
    """What a command line lacks or has too much of, told before anything slow is imported."""
    if args.report:
        return None
    if len(args.results) > 1:
        return f'--results: found {len(args.results)} files, expected one to run with.'
    if args.settings:
        both = args.teacher or args.student
        return 'settings: found files and --teacher or --student; expected one or the other.' if both else None
    needed = {'--teacher': args.teacher, '--student': args.student, '--methods': args.methods}
    missing = [name for name, value in needed.items() if not value]
    if len(missing) == len(needed):
        return 'settings: missing; expected files, or --teacher, --student and --methods.'
    if missing == ['--methods']:
        return '--methods: missing; expected names of files in configs/_base_/distill, such as fgd mgd.'
    there = [name for name in needed if name not in missing]
    return f'{" and ".join(missing)}: missing; expected beside {" and ".join(there)}.' if missing else None


def _flags(args: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """Arguments that were given, in the words of a command line."""
    words = []
    for name in names:
        value = getattr(args, name)
        if value is not None:
            values = [] if value is True else value if isinstance(value, list) else [value]
            words += [f'--{name.replace("_", "-")}', *map(str, values)]
    return words


def make_settings(args: argparse.Namespace) -> list:
    """The settings of a command line.

    Raises:
        ConfigError: For what is missing or unknown.
    """
    from kd_det.bench.setting import first_to_teach_itself, load_setting, make_setting, only_methods

    common = {name: getattr(args, name) for name in _KEYS}
    if args.self_distilled == 'none':
        common['self_distilled'] = None
    if args.tune:
        common['tune'] = dict(factors=args.tune)
    common = {key: value for key, value in common.items() if value is not None}
    changed = shlex.join(_flags(args, ('teacher', 'student', 'name', 'methods', 'tune', *_KEYS)))
    if args.settings:
        controls = {name: common.pop(name) for name in _CONTROLS if name in common}
        settings = [load_setting(path, **common) for path in args.settings]
        for setting in settings:
            setting.source = f'{shlex.quote(setting.source)} {changed}'.rstrip()
            if args.methods:
                only_methods(setting, args.methods)
            for name, value in controls.items():  # they may be of methods that --methods adds
                setattr(setting, name, tuple(value) if isinstance(value, list) else value)
            if args.self_distilled == 'none':
                setting.self_distilled = None
            setting.check_controls()
    else:
        given = dict(teacher=args.teacher, student=args.student, methods=args.methods, **common)
        given.setdefault('self_distilled', first_to_teach_itself(args.methods))
        if args.weights != 'published':
            given.setdefault('tune', {})
        settings = [
            make_setting(given, args.name or f'{Path(args.teacher).stem}_{Path(args.student).stem}', source=changed)
        ]
    return settings


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from kd_det.bench.ledger import read_records
    from kd_det.bench.publish import publish, write_reports
    from kd_det.bench.run import BenchOptions, run_settings
    from kd_det.errors import KDDetError

    failed = {}
    names = {path.stem for path in args.settings}  # of the settings to report; all if none
    if args.report:
        records = [record for path in args.results for record in read_records(path)]
    else:
        options = BenchOptions(
            work_dir=args.work_dir,
            results=args.results[0],
            jobs=args.jobs,
            gpus=tuple(args.gpus),
            threads=args.threads,
            weights=args.weights,
            only=tuple(args.only),
            dry_run=args.dry_run,
            check=not args.no_check,
        )
        settings = make_settings(args)
        names = {setting.name for setting in settings}
        records, failed = run_settings(settings, options)
    if not args.dry_run:
        for name, path in write_reports(records, args.work_dir, args.results[0].parent, only=names or None).items():
            print(f'Report of {name}: {path}')
    if args.write_readme and not args.dry_run:
        print('Written:', ', '.join(map(str, publish(records, args.repo))))
    if failed:
        what = '1 run failed' if len(failed) == 1 else f'{len(failed)} runs failed, or need one that did'
        raise KDDetError(f'{what}: {", ".join(f"{setting}: {cell}" for setting, cell in failed)}.')


if __name__ == '__main__':
    parse_args()  # what is wrong with the words, and --help, need no imports
    # waiting threads sleep: spinning ones make a step ten times as slow as soon as anything else runs on the machine
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    from kd_det.engine import guarded

    try:
        sys.exit(guarded(main))
    except KeyboardInterrupt:
        print('\nStopped. Finished runs are kept; the same command goes on from them.', file=sys.stderr)
        sys.exit(130)
