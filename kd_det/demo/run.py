"""The demo as a whole: data, teacher, plain student, distilled students, and the report."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope

import kd_det
from kd_det.bench.display import Display
from kd_det.bench.machine import processor, versions
from kd_det.bench.part import Part, detector_config, initial_weights, output_to, predict
from kd_det.checkpoint import atomic_path
from kd_det.datasets.synthetic import CLASSES, PALETTE, SyntheticSpec, write_synthetic
from kd_det.demo.report import demo_table, display_name, summarise, write_into_readme
from kd_det.engine import check_work_dir, load_config
from kd_det.errors import ConfigError, KDDetError, did_you_mean
from kd_det.registry import DATASETS
from kd_det.visualization import picture_sheet, plot_learning_curves

__all__ = ['DemoSettings', 'run_demo']

TEACHER = 'retina_r18_synthetic.py'
STUDENT = 'retina_mobilenetv2_synthetic.py'
DISTILLED = '_retina_r18_mobilenetv2_synthetic.py'
#: Cost of a training step, in steps of the plain student; for the time left only.
_COST = dict(teacher=1.3, plain=1.0)
_DISTILLED_COST = 1.5
_SHEET_IMAGES = 6


@dataclass
class DemoSettings:
    """What to run.

    Args:
        configs: Folder with the demo's configs.
        methods: Methods to distil with: those that have a config ``<method>_retina_r18_mobilenetv2_synthetic.py``.
        seeds: Seeds of weights and data order.
        epochs: Length of every training; None for those of the configs.
        data: The set to draw.
        data_dir: Where the set lies.
        work_dir: Where everything else goes.
        reuse_teacher: Train the teacher with the first seed only and use it for all.
        fresh: Throw finished parts away first.
        readme: README to write the table into, or None.
        command: The command line, for the record.
    """

    configs: Path
    methods: tuple[str, ...] = ('fgd',)
    seeds: tuple[int, ...] = (0,)
    epochs: int | None = None
    data: SyntheticSpec = field(default_factory=SyntheticSpec)
    data_dir: Path = Path('data/synthetic')
    work_dir: Path = Path('work_dirs/demo')
    reuse_teacher: bool = False
    fresh: bool = False
    readme: Path | None = None
    command: str = ''

    def check(self) -> None:
        """Raise ConfigError for a value that cannot be run."""
        known = available_methods(self.configs)
        for method in self.methods:
            if method not in known:
                raise ConfigError(
                    f"--method is '{method}', expected one of {', '.join(known)}.{did_you_mean(method, known)}"
                )
        if not self.methods or not self.seeds:
            raise ConfigError('the demo needs at least one method and one seed.')
        for key, values in (('--method', self.methods), ('--seeds', self.seeds)):
            if len(set(values)) < len(values):
                raise ConfigError(f'{key} is {list(values)}, expected each value once.')
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f'--epochs is {self.epochs}, expected at least 1.')


def available_methods(configs: Path) -> list[str]:
    """Methods that the demo has a config for."""
    return sorted(path.name.removesuffix(DISTILLED) for path in Path(configs).glob(f'*{DISTILLED}'))


def _load(settings: DemoSettings, name: str, seed: int) -> Config:
    """One of the demo's configs with data folder, length and seed filled in."""
    cfg = load_config(settings.configs / name)
    annotations = str(settings.data_dir / 'annotations' / 'val.json')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(settings.data_dir)
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (settings.data.image_size,) * 2
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = annotations
    cfg.image_size = settings.data.image_size
    if settings.epochs is not None:
        for schedule in cfg.param_scheduler:
            if schedule.get('T_max') == cfg.train_cfg.max_epochs:
                schedule.T_max = settings.epochs
        cfg.train_cfg.max_epochs = settings.epochs
    cfg.randomness = dict(seed=seed)
    cfg.default_hooks.logger.interval = 10
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', interval=cfg.train_cfg.max_epochs, max_keep_ckpts=1, save_optimizer=False
    )
    return cfg


def _versions() -> dict[str, str]:
    return versions(('torch', 'mmcv', 'mmengine', 'mmdet', 'numpy'))


def _hardware() -> dict:
    gpu = torch.cuda.get_device_name(0) if get_device() == 'cuda' else None
    return dict(
        cpu=processor(), cores=os.cpu_count(), threads=torch.get_num_threads(), gpu=gpu, system=platform.system()
    )


def _digest(*things: object) -> str:
    return hashlib.sha256(json.dumps(things, sort_keys=True, default=str).encode()).hexdigest()


def _code_digest() -> str:
    """Digest of the sources that decide how a student is distilled."""
    root = Path(kd_det.__file__).parent
    folders = (root / name for name in ('adapters', 'detectors', 'hooks', 'losses', 'taps'))
    files = sorted(path for folder in folders for path in folder.rglob('*.py'))
    return _digest([(p.relative_to(root).as_posix(), hashlib.sha256(p.read_bytes()).hexdigest()) for p in files])


class _Demo:
    def __init__(self, settings: DemoSettings, display: Display) -> None:
        self.settings, self.display = settings, display
        self.parts_dir = settings.work_dir / 'parts'
        manifest = hashlib.sha256((settings.data_dir / 'manifest.json').read_bytes()).hexdigest()
        self.world = [manifest, _versions(), get_device()]

    def part(self, name: str, seed: int, config: str, inputs: object = None, **files: Path) -> Part:
        cfg = _load(self.settings, config, seed)
        content = cfg.to_dict()
        for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            content[key]['dataset'].pop('data_root')
        content['model'].pop('teacher', None)  # ``inputs`` names it by what it was trained from
        for key in ('val_evaluator', 'test_evaluator', 'data_root', 'filename'):
            content.pop(key, None)
        digest = _digest(content, seed, self.world, inputs)
        return Part(name, seed, cfg, self.parts_dir / f'{name}-seed{seed}-{digest[:10]}', digest, **files)

    def parts(self) -> list[Part]:
        """All trainings, in order; a part comes after those it needs."""
        code, parts, teacher = _code_digest(), [], None
        for seed in self.settings.seeds:
            if teacher is None or not self.settings.reuse_teacher:
                teacher = self.part('teacher', seed, TEACHER)
                parts.append(teacher)
            self.parts_dir.mkdir(parents=True, exist_ok=True)
            student = _load(self.settings, STUDENT, seed)
            initial = self.parts_dir / f'initial-seed{seed}-{_digest(detector_config(student))[:10]}.pth'
            weights = initial_weights(student, seed, initial)
            parts.append(self.part('plain', seed, STUDENT, inputs=weights, initial=initial))
            for method in self.settings.methods:
                inputs = [weights, teacher.digest, code]
                files = dict(initial=initial, teacher=teacher.checkpoint)
                parts.append(self.part(method, seed, method + DISTILLED, inputs, **files))
        return parts

    def train(self, parts: list[Part]) -> list[dict]:
        done = [part.finished() for part in parts]
        costs = [_COST.get(part.name, _DISTILLED_COST) for part in parts]
        units = [cost * self._steps(part) for part, cost in zip(parts, costs)]
        self.display.plan(sum(unit for unit, record in zip(units, done) if record is None))
        runs = []
        for part, record, cost in zip(parts, done, costs):
            if record is None:
                record = self._train(part, cost)
                figures = record['metrics']
                self.display.say(
                    f'{part.label} mAP {100 * figures["mAP"]:.1f}, {record["train_seconds"]:.0f} s of training'
                )
            else:
                self.display.say(f'{part.label} mAP {100 * record["metrics"]["mAP"]:.1f}, reused from {part.folder}')
            runs.append(record)
        return runs

    def _steps(self, part: Part) -> int:
        batch, cfg = part.config.train_dataloader.batch_size, part.config.train_cfg
        return cfg.max_epochs * -(-self.settings.data.train // batch)

    def _train(self, part: Part, cost: float) -> dict:
        self.display.start(part.label)
        epochs, figure = part.config.train_cfg.max_epochs, ''

        def report(steps: int, epoch: int, loss: float, mAP: float | None = None) -> None:
            nonlocal figure
            figure = figure if mAP is None else f', mAP {100 * mAP:.1f}'
            text = f'epoch {epoch}/{epochs}, loss {loss:.2f}{figure}'
            self.display.advance(steps * cost, text)
            if not steps and mAP is None:
                self.display.milestone(text)

        try:
            return part.train(report)
        except KDDetError:
            raise
        except Exception as error:
            error.add_note(f'While training {part.label[:-1]}; what mmengine printed is in {part.folder}/console.log')
            raise


def _check_fairness(runs: list[dict]) -> None:
    """Plain and distilled students of a seed must have started from the same weights and seen the same batches."""
    plain = {run['seed']: run for run in runs if run['name'] == 'plain'}
    for run in runs:
        if run['name'] == 'teacher':
            continue
        for key in ('initial_weights', 'data', 'steps'):
            expected = plain[run['seed']][key]
            if run[key] != expected:
                raise RuntimeError(
                    f'{run["name"]}, seed {run["seed"]}: {key} is {run[key]}, but {expected} for the plain student: '
                    'the comparison would not be fair'
                )


def _draw_sheet(parts: list[Part], path: Path) -> None:
    with output_to(parts[0].folder / 'console.log'):
        data = DATASETS.build(parts[0].config.val_dataloader.dataset)
    counts = [len(data.get_data_info(i)['instances']) for i in range(len(data))]
    wanted = [i for i, count in enumerate(counts) if 2 <= count <= 4] or list(range(len(data)))
    chosen = wanted[:_SHEET_IMAGES]
    samples = [data[i] for i in chosen]
    images = [sample['inputs'].numpy().transpose(1, 2, 0)[..., ::-1] for sample in samples]
    truth = []
    for sample in samples:
        found = sample['data_samples'].gt_instances
        boxes = found.bboxes
        truth.append(dict(boxes=getattr(boxes, 'tensor', boxes).numpy(), labels=found.labels.numpy()))
    columns = {display_name(part.name): predict(part, chosen) for part in parts}
    picture_sheet(images, truth, columns, CLASSES, PALETTE, path)


def run_demo(settings: DemoSettings, display: Display | None = None) -> dict:
    """Run the demo; finished parts with equal settings are reused.

    Args:
        settings: What to run.
        display: Where to show progress; standard output if None.

    Returns:
        The content of ``results.json``.

    Raises:
        ConfigError: A setting has a wrong value, or the work folder cannot be written.
        DataError: The data set or the README cannot be written.
    """
    settings.check()
    init_default_scope('mmdet')
    display, start, work = display or Display(), time.perf_counter(), settings.work_dir
    if settings.fresh:
        shutil.rmtree(work / 'parts', ignore_errors=True)
    check_work_dir(work)
    written = write_synthetic(settings.data_dir, settings.data)
    display.say(f'{"Drew" if written else "Found"} the synthetic set in {settings.data_dir}')
    with display:
        demo = _Demo(settings, display)
        parts = demo.parts()
        runs = demo.train(parts)
    _check_fairness(runs)

    first = [part for part in parts if part.seed == settings.seeds[0]]
    names = dict(curves='curves.png', pictures='pictures.png', results='results.json', table='table.md')
    files = {key: work / name for key, name in names.items()}
    students = {}
    for part, run in zip(parts, runs):
        if part.name in settings.methods:
            plain_mmdet = part.evaluate()
            if any(abs(plain_mmdet[key] - value) > 0.002 for key, value in run['metrics'].items()):
                raise RuntimeError(
                    f'{part.checkpoint} under plain mmdet gives {plain_mmdet}, but {run["metrics"]} in training'
                )
            target = work / f'{part.name}_student_seed{part.seed}.pth'
            shutil.copyfile(part.checkpoint, target)
            shutil.copyfile(part.checkpoint.with_suffix('.py'), target.with_suffix('.py'))
            students[f'{part.name}, seed {part.seed}'] = target
    shutil.copyfile(first[0].checkpoint, work / 'teacher.pth')  # where the distilled demo configs look for it
    curves = {
        display_name(name): [run['curve'] for run in runs if run['name'] == name]
        for name in dict.fromkeys(part.name for part in parts)
    }
    plot_learning_curves(curves, files['curves'])
    _draw_sheet(first, files['pictures'])
    results = dict(
        command=settings.command,
        finished=time.strftime('%Y-%m-%dT%H:%M:%S%z'),
        seconds=round(time.perf_counter() - start, 1),
        versions=_versions(),
        hardware=_hardware(),
        settings=dict(
            methods=list(settings.methods),
            seeds=list(settings.seeds),
            teacher_epochs=first[0].config.train_cfg.max_epochs,
            epochs=first[1].config.train_cfg.max_epochs,
            batch_size=parts[0].config.train_dataloader.batch_size,
            reuse_teacher=settings.reuse_teacher,
        ),
        data=asdict(settings.data),
        summary=summarise(runs),
        runs=runs,
        files={key: str(path) for key, path in files.items()} | {'students': {k: str(v) for k, v in students.items()}},
    )
    for key, text in (('results', json.dumps(results, indent=1)), ('table', demo_table(results, markdown=True))):
        with atomic_path(files[key]) as path:
            path.write_text(text + '\n', encoding='utf-8')
    display.say('\n' + demo_table(results) + '\n')
    for what, path in (('Learning curves', 'curves'), ('Pictures', 'pictures'), ('All figures', 'results')):
        display.say(f'{what}: {files[path]}')
    for name, path in students.items():
        display.say(f'Student for plain mmdet ({name}): {path}, its config beside it')
    if settings.readme is not None:
        write_into_readme(settings.readme, demo_table(results, markdown=True))
        display.say(f'Table written into {settings.readme}')
    return results
