"""Train a teacher, a plain and a distilled student on a set of real photographs, and measure all as COCO and VOC do.

Usage: python tools/real_data.py --set bccd [--seeds 0] [--epochs N] [--write-readme]

The configs are configs/small/*_<set>_cpu.py, small enough for a CPU. The set is expected in data/<set>. Finished parts
with equal settings are not trained again; what an edit of the sources changes is not noticed: --fresh is for that.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

import torch

import kd_det  # noqa: F401, registers everything
from kd_det.bench.display import Display
from kd_det.bench.machine import processor, versions
from kd_det.bench.part import METRICS, Part, initial_weights, output_to
from kd_det.checkpoint import atomic_path
from kd_det.demo.report import display_name
from kd_det.engine import check_test, guarded, load_config, prepare_test, prepare_train, run_test
from kd_det.engine.arguments import parse_test, parse_train
from kd_det.errors import ConfigError, did_you_mean
from kd_det.visualization import markdown_table, text_table, write_between_marks

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs' / 'small'
#: Part → its config. A part comes after those that it needs.
PARTS = dict(
    teacher='retina_r18_{}_cpu.py',
    plain='retina_mobilenetv2_{}_cpu.py',
    fgd='fgd_retina_r18_mobilenetv2_{}_cpu.py',
)
SPLITS = ('train', 'val')
MARK_BEGIN, MARK_END = '<!-- real:begin -->', '<!-- real:end -->'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--set', default='bccd', help='the set (default: bccd)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='seeds of weights and data order')
    parser.add_argument('--epochs', type=int, help='length of each training (default: as in the configs)')
    parser.add_argument('--data-root', type=Path, metavar='DIR', help='folder of the set (default: data/<set>)')
    parser.add_argument('--work-dir', type=Path, metavar='DIR', help='default: work_dirs/real/<set>')
    parser.add_argument('--fresh', action='store_true', help='train all again, also what was finished before')
    parser.add_argument(
        '--write-readme',
        action='store_true',
        help='write the figures to docs/results/real_cpu.json, docs/real_data.md and, between its marks, README.md',
    )
    parser.add_argument('--repo', type=Path, default=ROOT, help='where --write-readme finds README.md and docs')
    args = parser.parse_args(argv)
    args.data_root = args.data_root or Path('data') / args.set
    args.work_dir = args.work_dir or Path('work_dirs') / 'real' / args.set
    args.command = ' '.join(['python', 'tools/real_data.py', *(sys.argv[1:] if argv is None else argv)])
    return args


def check_args(args: argparse.Namespace) -> None:
    """Raise ConfigError for a value that cannot be run."""
    before, after = PARTS['teacher'].split('{}')
    known = sorted(path.name[len(before) : -len(after)] for path in CONFIGS.glob(PARTS['teacher'].format('*')))
    if args.set not in known:
        raise ConfigError(f"--set is '{args.set}', expected one of {', '.join(known)}.{did_you_mean(args.set, known)}")
    if len(set(args.seeds)) < len(args.seeds):
        raise ConfigError(f'--seeds is {args.seeds}, expected each value once.')
    if args.epochs is not None and args.epochs < 1:
        raise ConfigError(f'--epochs is {args.epochs}, expected at least 1.')


def data_options(root: Path) -> dict:
    """Config options that point data and metric to a folder."""
    options = {f'{name}_dataloader.dataset.data_root': str(root) for name in ('train', 'val', 'test')}
    return options | {f'{name}_evaluator.ann_file': str(root / 'annotations' / 'val.json') for name in ('val', 'test')}


def make_part(args: argparse.Namespace, name: str, seed: int, inputs: object = None, **files: Path) -> Part:
    """A part with its config as ``tools/train.py`` would make it, checked."""
    path, folder = CONFIGS / PARTS[name].format(args.set), args.work_dir / f'{name}-seed{seed}'
    train = parse_train([str(path), '--work-dir', str(folder)])
    train.cfg_options = data_options(args.data_root) | {'randomness.seed': seed}
    if args.epochs is not None:
        train.cfg_options |= {
            'train_cfg.max_epochs': args.epochs,
            'train_cfg.val_interval': args.epochs,
            'param_scheduler.1.T_max': args.epochs,
            'default_hooks.checkpoint.interval': args.epochs,
        }
    cfg = prepare_train(train)
    marks = [hashlib.sha256((args.data_root / f'annotations/{s}.json').read_bytes()).hexdigest() for s in SPLITS]
    content = json.dumps([cfg.to_dict(), seed, marks, inputs], sort_keys=True, default=str)
    return Part(name, seed, cfg, folder, hashlib.sha256(content.encode()).hexdigest(), **files)


def evaluate(args: argparse.Namespace, part: Part) -> dict[str, dict]:
    """COCO and VOC figures of a finished part's checkpoint, by the path that ``tools/test.py`` takes.

    Returns:
        ``coco`` with the names of :data:`kd_det.bench.part.METRICS`, ``coco_classes`` with the mAP of each class, and
        ``voc`` with ``mAP`` (IoU 0.5) and ``eval_mode``.
    """
    test = parse_test([str(CONFIGS / PARTS[part.name].format(args.set)), str(part.checkpoint)])
    test.work_dir, test.cfg_options = str(part.folder / 'test'), data_options(args.data_root)
    cfg = prepare_test(test)
    cfg.test_evaluator.classwise = True
    voc = prepare_test(test)
    base = load_config(ROOT / 'configs' / '_base_' / 'datasets' / f'{args.set}_voc.py')
    pipeline = voc.test_dataloader.dataset.pipeline
    voc.test_dataloader.dataset = {**base.test_dataloader.dataset, 'data_root': str(args.data_root)}
    voc.test_dataloader.dataset.pipeline = pipeline
    voc.test_evaluator = base.test_evaluator
    check_test(voc)
    figures = []
    for kind, config in (('coco', cfg), ('voc', voc)):
        config.experiment_name = f'{kind}-{part.folder.name}-{time.time_ns()}'
        with output_to(part.folder / 'console.log'):
            figures.append(run_test(config, str(part.checkpoint)))
    coco, pascal = figures
    return dict(
        coco={name: float(coco.get(f'coco/{key}', 0.0)) for name, key in METRICS.items()},
        coco_classes={name: float(coco.get(f'coco/{name}_precision', 0.0)) for name in cfg.metainfo.classes},
        voc=dict(mAP=float(pascal['pascal_voc/mAP']), eval_mode=voc.test_evaluator.eval_mode),
    )


def run_part(args: argparse.Namespace, part: Part, display: Display) -> dict:
    """Train and evaluate one part, or read what was found before."""
    steps = -(-count(args.data_root, 'train')['images'] // part.config.train_dataloader.batch_size)
    record, measured = part.finished(), part.folder / 'evaluated.json'
    if record is None:
        display.plan(steps * part.config.train_cfg.max_epochs)
        display.start(part.label)

        def report(steps: int, epoch: int, loss: float, mAP: float | None = None) -> None:
            text = f'epoch {epoch}/{part.config.train_cfg.max_epochs}, loss {loss:.2f}'
            display.advance(steps, text)
            if mAP is not None:
                display.milestone(f'{text}, mAP {100 * mAP:.1f}')

        record = part.train(report)
    if record['reused'] and measured.is_file():
        figures = json.loads(measured.read_text())
    else:
        figures = evaluate(args, part)
        with atomic_path(measured) as path:
            path.write_text(json.dumps(figures, indent=1))
    state = 'reused' if record['reused'] else f'{record["train_seconds"]:.0f} s of training'
    display.say(
        f'{part.label} COCO mAP {100 * figures["coco"]["mAP"]:.1f}, VOC mAP {100 * figures["voc"]["mAP"]:.1f}, {state}'
    )
    return {**record, **figures}


def count(root: Path, split: str) -> dict[str, int]:
    """Images and boxes of one split."""
    content = json.loads((root / 'annotations' / f'{split}.json').read_text())
    return dict(images=len(content['images']), boxes=len(content['annotations']))


def check_fairness(runs: list[dict]) -> None:
    """Plain and distilled student of a seed must have had the same initial weights, batches and number of steps."""
    plain = {run['seed']: run for run in runs if run['name'] == 'plain'}
    for run in runs:
        for key in ('initial_weights', 'data', 'steps') if run['name'] == 'fgd' else ():
            if run[key] != plain[run['seed']][key]:
                raise RuntimeError(
                    f'fgd, seed {run["seed"]}: {key} is {run[key]}, but {plain[run["seed"]][key]} for the plain student'
                )


def hardware() -> dict:
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    return dict(cpu=processor(), cores=os.cpu_count(), threads=torch.get_num_threads(), gpu=gpu)


def run(args: argparse.Namespace, display: Display | None = None) -> dict:
    """Run all parts of all seeds and write ``results.json``.

    Returns:
        Its content.
    """
    check_args(args)
    if args.fresh:
        shutil.rmtree(args.work_dir, ignore_errors=True)
    runs, first = [], None
    with display or Display() as display:
        for seed in args.seeds:
            teacher = make_part(args, 'teacher', seed)
            first = first or teacher
            runs.append(run_part(args, teacher, display))
            student = make_part(args, 'plain', seed)
            initial = args.work_dir / f'initial-seed{seed}.pth'
            weights = initial_weights(student.config, seed, initial)
            plain = make_part(args, 'plain', seed, inputs=weights, initial=initial)
            runs.append(run_part(args, plain, display))
            inputs, files = [weights, teacher.digest], dict(initial=initial, teacher=teacher.checkpoint)
            runs.append(run_part(args, make_part(args, 'fgd', seed, inputs, **files), display))
    check_fairness(runs)
    shutil.copyfile(first.checkpoint, args.work_dir / 'teacher.pth')  # where the distilled config looks for it
    cfg = first.config
    results = dict(
        command=args.command,
        finished=time.strftime('%Y-%m-%dT%H:%M:%S%z'),
        versions=versions(),
        hardware=hardware(),
        settings=dict(
            set=args.set,
            seeds=args.seeds,
            epochs=cfg.train_cfg.max_epochs,
            batch_size=cfg.train_dataloader.batch_size,
            image_scale=list(cfg.image_scale),
            fgd_weight=load_config(CONFIGS / PARTS['fgd'].format(args.set)).model.distill.fgd.weight,
            configs={name: f'configs/small/{file.format(args.set)}' for name, file in PARTS.items()},
        ),
        data={split: count(args.data_root, split) for split in SPLITS},
        runs=[{key: value for key, value in run.items() if key not in ('reused', 'metrics')} for run in runs],
    )
    with atomic_path(args.work_dir / 'results.json') as path:
        path.write_text(json.dumps(results, indent=1) + '\n')
    return results


def table(results: dict, markdown: bool = True) -> str:
    """The figures of all parts: mean over the seeds, with the sample standard deviation if there are several."""
    runs, columns = results['runs'], ('mAP', 'AP50', 'AP75', 'small', 'medium', 'large')
    classes = list(runs[0]['coco_classes'])
    rows = []
    for name in PARTS:
        mine = [run for run in runs if run['name'] == name]

        def cell(pick, mine=mine) -> str:
            values = [100 * pick(run) for run in mine]
            std = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
            return '–' if min(values) < 0 else f'{statistics.fmean(values):.1f}{std}'  # COCO's -1: no such object

        rows.append(
            [
                display_name(name),
                *(cell(lambda run, c=c: run['coco'][c]) for c in columns),
                cell(lambda run: run['voc']['mAP']),
                *(cell(lambda run, c=c: run['coco_classes'][c]) for c in classes),
                f'{mine[0]["parameters"] / 1e6:.2f} M',
                f'{mine[0]["flops"] / 1e9:.2f} G',
                f'{statistics.fmean(run["train_seconds"] for run in mine):.0f}',
            ]
        )
    header = ['detector', 'COCO mAP', *columns[1:], 'VOC mAP', *classes, 'parameters', 'FLOPs', 'train s']
    return (markdown_table if markdown else text_table)(header, rows)


def about(results: dict) -> str:
    """What the table was measured on, and what came out."""
    data, settings, hw = results['data'], results['settings'], results['hardware']
    train, val = data['train'], data['val']
    mean = {
        (name, kind): 100 * statistics.fmean(run[kind]['mAP'] for run in results['runs'] if run['name'] == name)
        for name in PARTS
        for kind in ('coco', 'voc')
    }
    gain, gap = (mean[name, 'coco'] - mean['plain', 'coco'] for name in ('fgd', 'teacher'))
    share = f'{gain / gap:.0%} of the gap of {gap:.1f} to the teacher' if gap > 0 else 'the teacher is no better'
    seeds = settings['seeds']
    several = f'{len(seeds)} seeds, mean ± standard deviation' if len(seeds) > 1 else f'one seed ({seeds[0]})'
    width, height = settings['image_scale']
    device = hw['gpu'] or f'{hw["threads"]} of {hw["cores"]} cores of a CPU'
    steps, mode = results['runs'][0]['steps'], results['runs'][0]['voc']['eval_mode']
    return (
        f'Per cent, on the {val["images"]} validation images ({val["boxes"]} boxes) of `{settings["set"]}` after '
        f'{settings["epochs"]} epochs ({steps} steps of {settings["batch_size"]} images of {width} x {height} px) on '
        f'{train["images"]} training images ({train["boxes"]} boxes), from random weights; {several}; {device}. The '
        f'last checkpoint counts, not the best. VOC mAP is at IoU 0.5, mode `{mode}`; the columns of the classes are '
        'COCO mAP. Plain and distilled student start from the same weights and see the same batches.\n\n'
        f'FGD: {gain:+.1f} COCO mAP ({share}) and {mean["fgd", "voc"] - mean["plain", "voc"]:+.1f} VOC mAP over the '
        'plain student.'
    )


def docs_page(results: dict) -> str:
    """docs/real_data.md."""
    settings, hw, name = results['settings'], results['hardware'], results['settings']['set']
    seeds, mode = settings['seeds'], results['runs'][0]['voc']['eval_mode']
    versions = ', '.join(f'{package} {number}' for package, number in results['versions'].items())
    configs = '\n'.join(f'- {display_name(part)}: `{path}`' for part, path in settings['configs'].items())
    networks, images = len(results['runs']), results['data']['val']['images']
    sample = f'{len(seeds)} seed{"s" * (len(seeds) > 1)}, {images} validation images'
    chance = (
        'the deviations in the table are those between seeds'
        if len(seeds) > 1
        else 'how far chance moves a figure was not measured'
    )
    curve = next(run['curve'] for run in results['runs'] if run['name'] == 'plain')
    gained = zip(curve['val_epoch'], curve['mAP'])
    last = ', '.join(f'mAP {100 * figure:.1f} after epoch {epoch}' for epoch, figure in [*gained][-2:])
    return f"""# Real photographs on a CPU

<!-- written by `python tools/real_data.py --write-readme` from docs/results/real_cpu.json -->

{table(results)}

{about(results)}

This shows that the toolkit trains and measures on real images, in both formats. It is no benchmark:

- The networks are small and the trainings short. The plain student had {last}.
  While it is still gaining, part of what FGD gives may be speed; a longer training was not measured.
- {sample}: {chance}.
- Steps are equal, seconds are not: a distilled step runs the teacher, too.
- The labels are noisy (many red cells have none).

The factor of FGD, {settings['fgd_weight']:g}, is the demo's, chosen on synthetic pictures. Nothing was tuned on this
set.

## How to repeat

Put the set, or a link to it, into `data/{name}`, then

    {results['command']}

It trains {networks} networks one after the other; what is finished is not trained again. Checkpoints, logs, learning
curves and all figures are in `work_dirs/real/{name}`. The configs:

{configs}

Each also trains by `tools/train.py`; the distilled one expects the teacher in
`work_dirs/real/{name}/teacher.pth`, where the tool leaves it.

COCO figures are pycocotools' by mmdet's `CocoMetric` from `annotations/val.json`. VOC figures are those of mmdet's
`VOCMetric` over the XML files (`configs/_base_/datasets/{name}_voc.py`), mode `{mode}`.
`area` is the area under the whole curve, as VOC measures since 2010, `11points` the older rule.

Measured with {versions}.
Hardware: {hw['gpu'] or hw['cpu']}; {hw['threads']} of {hw['cores']} CPU cores, shared with other work, so that the
seconds are upper bounds.

## Where the sets are

{SOURCES}
"""


SOURCES = """- `bccd`: 292 photographs of stained blood smears, 640 x 480 px, with platelets, red and white cells.
  [Shenggan/BCCD_Dataset](https://github.com/Shenggan/BCCD_Dataset), commit `d272fb14`, MIT licence; its own train and
  val lists.
- `cards`: 306 photographs of playing cards.
  [EdjeElectronics' tutorial](https://github.com/EdjeElectronics/TensorFlow-Object-Detection-API-Tutorial-Train-Multiple-Objects-Windows-10),
  folder `images`, commit `c1645825`, Apache-2.0; split anew, with near-duplicates kept together. Three photographs with
  personal papers are left out, names end in `.jpg`, and webcam images (`cam_image…`) are reduced with their boxes, all
  but one to 640 x 360 px; how was not noted, so that a set made from the original differs a little.

Both are expected as

    data/<set>/VOC2007/JPEGImages/*.jpg            the images
    data/<set>/VOC2007/Annotations/*.xml           boxes for mmdet's XMLDataset
    data/<set>/VOC2007/ImageSets/Main/{train,val}.txt
    data/<set>/annotations/{train,val}.json        the same boxes for mmdet's CocoDataset

The originals hold XML files only. Copy `docs/splits/<set>_{train,val}.txt` to `ImageSets/Main/{train,val}.txt`, then
write the JSON files from the XML ones:

    python tools/voc_to_coco.py data/bccd --classes Platelets RBC WBC
    python tools/voc_to_coco.py data/cards --classes nine ten jack queen king ace

In them `bbox` is `[xmin - 1, ymin - 1, xmax - xmin, ymax - ymin]`, because VOC counts pixels from 1. Boxes without area
are left out (in `bccd` two, of BloodImage_00338 and BloodImage_00343)."""


def publish(results: dict, repo: Path) -> None:
    """Write the figures into docs and README."""
    more = 'How to repeat it, and what it does not show: [docs/real_data.md](docs/real_data.md).'
    write_between_marks(repo / 'README.md', MARK_BEGIN, MARK_END, f'{table(results)}\n\n{about(results)} {more}')
    for name, text in (
        ('docs/results/real_cpu.json', json.dumps(results, indent=1) + '\n'),
        ('docs/real_data.md', docs_page(results)),
    ):
        (repo / name).parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(repo / name) as path:
            path.write_text(text, encoding='utf-8')


def main(argv: list[str] | None = None) -> dict:
    args = parse_args(argv)
    results = run(args)
    print(f'\n{table(results, markdown=False)}\n\n{about(results)}\n\nAll figures: {args.work_dir / "results.json"}')
    if args.write_readme:
        publish(results, args.repo)
        print('Written: README.md, docs/real_data.md, docs/results/real_cpu.json')
    return results


if __name__ == '__main__':
    try:
        sys.exit(guarded(main))
    except KeyboardInterrupt:
        print('\nStopped. Finished parts are kept; the same command goes on from them.', file=sys.stderr)
        sys.exit(130)
