"""The trainings that a setting consists of: their configs, what each needs, and when two are the same."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from mmdet.evaluation import CocoMetric, VOCMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config

from kd_det.bench.holdout import split_off
from kd_det.bench.part import Part, detector_config
from kd_det.bench.setting import Method, Setting, leaves
from kd_det.bench.statistics import choose_factor
from kd_det.errors import ConfigError, DataError

__all__ = ['Cell', 'Cells', 'Job']

#: Versions that a figure depends on; a record made with others is made again.
PACKAGES = ('torch', 'mmcv', 'mmengine', 'mmdet')
#: Seed of the weights of the teacher that was never trained.
RANDOM_TEACHER_SEED = 10_000
#: What to do about data that are not there.
DATA_ROOT = 'If the data set lies elsewhere, --data-root DIR names its folder.'
_PLACES = ('data_root', 'ann_file', 'checkpoint', 'paraphraser', 'filename', '_scope_', 'backend_args')


@dataclass
class Job:
    """What a worker process does for one cell.

    Attributes:
        part: The training; for a first stage its config has no student.
        first_stage: Whether it is one: nothing is evaluated or exported then.
        only_test: Whether the weights exist and are only measured.
        given: File or URL of these weights.
        make: Random weights to write first, where absent: (config, seed, file).
        inherit: (teacher's config, teacher's checkpoint, parts) that the initial weights take over; None for none.
        plain: Config of the plain student, if steps of both are to be timed in turn.
        imports: Modules of ``custom_imports``, which register what the configs name.
    """

    part: Part
    first_stage: bool = False
    only_test: bool = False
    given: str | None = None
    make: list[tuple[Config, int, Path]] = field(default_factory=list)
    inherit: tuple[Config, Path | str, tuple[str, ...]] | None = None
    plain: Config | None = None
    imports: list[str] = field(default_factory=list)


@dataclass
class Cell:
    """One run of the benchmark.

    Attributes:
        name: Unique in its setting, such as ``fgd/x1/seed0``.
        facts: What the record says about it besides what is measured.
        digest: SHA-256 of all that the outcome depends on.
        needs: Names of cells whose weights it reads.
        job: How it is run.
        images: Training images times epochs, for the time left.
    """

    name: str
    facts: dict[str, Any]
    digest: str
    needs: tuple[str, ...]
    job: Job
    images: int

    @property
    def weights(self) -> Path | str:
        """Where its weights lie after it ran; given ones may be a URL."""
        if self.job.first_stage:
            return self.job.part.folder / 'epoch_1.pth'
        return self.job.given or self.job.part.checkpoint


def digest_of(*things: Any) -> str:
    """SHA-256 of things that JSON can hold; others count by their text."""
    return hashlib.sha256(json.dumps(things, sort_keys=True, default=str).encode()).hexdigest()


def without_places(value: Any) -> Any:
    """A config without names of files and folders, which do not change an outcome; URLs stay."""
    if isinstance(value, Mapping):
        return {str(k): without_places(v) for k, v in value.items() if k not in _PLACES or '://' in str(v)}
    return [without_places(v) for v in value] if isinstance(value, (list, tuple)) else value


def stretch(cfg: Config, ratio: float) -> int:
    """Make a training ``ratio`` times as long, its learning-rate schedule with it, and validate at its end only.

    In a loop of epochs, warm-ups by iteration are shortened with it and not lengthened; in a loop of iterations they
    are stretched too, so that schedulers still follow each other. A milestone stays before the end.

    Returns:
        The length in the unit of the loop: epochs, or iterations.

    Raises:
        ConfigError: If the config has no loop of known length.
    """
    loop = cfg.train_cfg
    key = next((k for k in ('max_epochs', 'max_iters') if loop.get(k)), None)
    if key is None:
        raise ConfigError(f'train_cfg: found {dict(loop)}, expected max_epochs or max_iters.')
    old = loop[key]
    new = max(1, round(old * ratio))
    by_epoch = key == 'max_epochs'
    schedulers = cfg.get('param_scheduler') or []
    for each in schedulers if isinstance(schedulers, list) else [schedulers]:
        if each.get('by_epoch', True) != by_epoch:
            for name in ('begin', 'end') if by_epoch and new < old else ():
                if each.get(name):
                    each[name] = max(1, round(each[name] * new / old))
            continue
        for name in ('T_max', 'end', 'begin', 'step_size', 'total_steps'):
            if each.get(name):
                each[name] = min(new, max(1, round(each[name] * new / old)))
        if each.get('milestones'):
            last = max(1, new - 1)
            each['milestones'] = sorted({min(last, max(1, round(m * new / old))) for m in each['milestones']})
        if each.get('periods'):
            each['periods'] = [max(1, round(m * new / old)) for m in each['periods']]
    for hook in cfg.get('custom_hooks') or []:  # those that change the training near its end
        for name in ('switch_epoch', 'num_last_epochs') if by_epoch else ():
            if hook.get(name):
                hook[name] = max(1, round(hook[name] * new / old))
    loop[key] = loop['val_interval'] = new
    loop.pop('dynamic_intervals', None)
    return new


def quiet(cfg: Config) -> None:
    """No checkpoints of mmengine's (the student is exported at the end), no pictures, few lines of log."""
    hooks = cfg.setdefault('default_hooks', {})
    hooks['checkpoint'] = dict(type='CheckpointHook', interval=-1, save_last=False)
    hooks['logger'] = dict(type='LoggerHook', interval=50)


def shuffle_labels(cfg: Config, seed: int) -> None:
    """Give every object of the training set a label drawn as often as the set has it, whatever the object is."""
    for leaf in leaves(cfg.train_dataloader.dataset):
        at = next((i for i, step in enumerate(leaf.pipeline) if step.type.split('.')[-1] == 'LoadAnnotations'), None)
        if at is None:
            raise ConfigError('shuffled_teacher: found no LoadAnnotations in the training pipeline to shuffle after.')
        classes = (leaf.get('metainfo') or {}).get('classes') or DATASETS.get(leaf.type).METAINFO['classes']
        step = dict(type='kd_det.ShuffleLabels', num_classes=len(classes), seed=seed)
        counts = class_counts(leaf, classes)
        if counts:
            step['frequencies'] = [count / sum(counts) for count in counts]
        leaf.pipeline.insert(at + 1, step)


def class_counts(leaf: Any, classes: Sequence[str]) -> list[int] | None:
    """How many objects of each class a data set has, in COCO's or VOC's form; None for other forms."""
    path = _listed(leaf)
    counts = dict.fromkeys(classes, 0)
    if path.suffix == '.json' and path.is_file():
        content = json.loads(path.read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        found = [names[box['category_id']] for box in content['annotations']]
    elif path.suffix == '.txt' and path.is_file():
        trees = [ElementTree.parse(file) for file in _boxes_of(leaf)]
        found = [each.findtext('name') for tree in trees for each in tree.iter('object')]
    else:
        return None
    for name in found:
        if name in counts:
            counts[name] += 1
    return list(counts.values()) if any(counts.values()) else None


def _of(method: Method | None) -> dict[str, Any]:
    """What a record says of its method: name, fragment, and whose its weights are if the setting changes them."""
    if method is None:
        return dict(method=None)
    facts = dict(method=method.name, fragment=method.fragment)
    changed = [change for each in (method, *method.parts) for change in (each.change, *each.terms.values())]
    if any(_numbers({key: part.get(key) for key in ('weight', 'loss')}) for part in changed):
        facts['weights_are'] = 'ours'
    return facts


def _numbers(value: Any) -> bool:
    """Whether there is a number in a part of a config."""
    if isinstance(value, Mapping):
        return any(map(_numbers, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_numbers, value))
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def without_pretrained(value: Any) -> None:
    """Take every ``init_cfg`` that reads weights out of a model's config, in place."""
    if isinstance(value, dict):
        init = value.get('init_cfg')
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            value['init_cfg'] = None
        for item in value.values():
            without_pretrained(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            without_pretrained(item)


class Cells:
    """All cells of a setting.

    Args:
        setting: The setting; its data must exist.
        folder: Work folder of the setting.
        device: ``'cpu'`` or ``'cuda'``.
        weights: Those that are to be measured: ``'published'``, ``'tuned'`` or ``'both'``.
    """

    def __init__(self, setting: Setting, folder: Path, device: str = 'cpu', weights: str = 'both') -> None:
        self.setting, self.folder, self.device, self.weights = setting, Path(folder), device, weights
        self._made: dict[str, Cell] = {}
        self._data: dict[str, str] = {}
        self._images: dict[str, int] = {}
        self._basis: str | None = None
        self.world = [{name: version(name) for name in PACKAGES}, device]
        configs = [setting.config('teacher'), setting.config('student')]
        named = [name for cfg in configs for name in (cfg.get('custom_imports') or {}).get('imports', [])]
        named += [name for method in setting.methods.values() for name in method.imports()]
        self.imports = list(dict.fromkeys(named))

    # --- which cells there are ----------------------------------------------------------------------------------------

    def all(self, records: Iterable[dict]) -> list[Cell]:
        """Every cell that can be named by now, in the order to run them: tuned ones once their factors are known.

        Other teachers (random weights, shuffled labels, the student itself) teach at the tuned factor too.

        Args:
            records: What is measured so far.
        """
        s, records = self.setting, list(records)
        tunes = s.tune is not None and self.weights != 'published'
        cells = [self.teacher('trained')] + [self.plain(seed) for seed in s.seeds]
        methods = list(s.methods.values())
        if self.weights != 'tuned' or s.tune is None:
            cells += [self.method(m, 1.0, seed) for seed in s.seeds for m in methods]
        if s.longer:
            cells += [self.plain(seed, 'plain_longer') for seed in s.seeds]
        if s.as_long_as_teacher and s.teacher_checkpoint is None:
            cells.append(self.plain(s.seeds[0], 'plain_as_teacher'))
        chosen = dict.fromkeys(s.methods, 1.0)
        if tunes:
            cells.append(self.tune(None, None))
            cells += [self.tune(m, factor) for m in methods for factor in s.tune['factors']]
            chosen = {m.name: self.chosen(m, records) for m in methods}
            cells += [self.method(m, chosen[m.name], seed) for seed in s.seeds for m in methods if chosen[m.name]]
        if s.shuffled_teacher:
            cells.append(self.teacher('shuffled'))
        own = (s.self_distilled,) if s.self_distilled else ()
        for teacher, names in (('self', own), ('random', s.random_teacher), ('shuffled', s.shuffled_teacher)):
            cells += [
                self.method(s.methods[m], chosen[m], seed, teacher) for m in names if chosen[m] for seed in s.seeds
            ]
        cells += [self.timing(m) for m in methods]
        stages = [self.first_stage(m, False) for m in methods if m.first_stage]
        stages += [self.first_stage(m, True) for m in methods if m.first_stage and tunes]
        if tunes and s.teacher_checkpoint is None:
            stages.append(self.teacher('tune'))
        return list({cell.name: cell for cell in cells[:1] + stages + cells[1:]}.values())

    def chosen(self, method: Method, records: list[dict]) -> float | None:
        """The factor that the holdout chose; None while a tuning run is missing."""
        wanted = {(c.name, c.digest) for c in (self.tune(method, f) for f in self.setting.tune['factors'])}
        found = [r for r in records if (r['cell'], r['digest']) in wanted]
        if len(found) < len(wanted):
            return None
        return choose_factor({r['factor']: 0.0 if r['diverged'] else r['metrics']['mAP'] for r in found})

    # --- single cells -------------------------------------------------------------------------------------------------

    def teacher(self, which: str) -> Cell:
        """A teacher: ``'trained'``, ``'shuffled'`` (on shuffled labels) or ``'tune'`` (without the holdout)."""
        name = f'teacher/{which}'
        if name in self._made:
            return self._made[name]
        s, given = self.setting, self.setting.teacher_checkpoint
        cfg, holdout = s.config('teacher'), which == 'tune'
        if holdout:
            self._split(cfg)
        if which == 'shuffled':
            shuffle_labels(cfg, s.teacher_seed)
        length = stretch(cfg, 1.0)
        only_test = which == 'trained' and given is not None
        weights = None
        if only_test:
            if '://' not in given and not Path(given).is_file():
                raise ConfigError(f'bench.teacher_checkpoint: {given!r} does not exist; expected a file or a URL.')
            weights = hashlib.sha256(Path(given).read_bytes()).hexdigest() if Path(given).is_file() else given
        facts = dict(
            kind='teacher', role='teacher', method=None, teacher=which, factor=None, seed=s.teacher_seed, epochs=length
        )
        job = Job(self._part('teacher', s.teacher_seed, cfg, name, weights))
        if only_test:
            job.only_test, job.given = True, given
            facts['epochs'] = 0
        return self._keep(name, facts, job, (), holdout)

    def plain(self, seed: int, role: str = 'plain') -> Cell:
        """The student without a teacher.

        Args:
            seed: Of initial weights and data order.
            role: ``'plain'``, ``'plain_longer'`` (:attr:`Setting.longer`) or ``'plain_as_teacher'`` (as many images as
                the teacher saw).
        """
        name = f'{role}/seed{seed}'
        if name in self._made:
            return self._made[name]
        cfg = self.setting.config('student')
        ratio = self.setting.longer if role == 'plain_longer' else 1.0
        if role == 'plain_as_teacher':
            ratio = self.teacher('trained').images / self.plain(seed).images
        length = stretch(cfg, ratio)
        facts = dict(kind='student', role=role, method=None, teacher=None, factor=None, seed=seed, epochs=length)
        job, needs = self._student(role, seed, cfg, name)
        return self._keep(name, facts, job, needs)

    def tune(self, method: Method | None, factor: float | None) -> Cell:
        """A short run without the holdout, measured on it; of the plain student without a method."""
        name = 'tune/plain' if method is None else f'tune/{method.name}/x{factor:g}'
        if name in self._made:
            return self._made[name]
        tune = self.setting.tune
        cfg, seed = self.setting.config('student'), tune['seed']
        self._split(cfg)
        length = stretch(cfg, tune['length'])
        source = self.teacher('tune' if self.setting.teacher_checkpoint is None else 'trained')
        facts = dict(kind='tune', role='plain' if method is None else 'method', seed=seed, epochs=length)
        facts |= _of(method) | dict(teacher=method and source.facts['teacher'], factor=factor)
        return self._distilled(name, facts, cfg, method, source, True)

    def method(self, method: Method, factor: float, seed: int, teacher: str = 'trained') -> Cell:
        """A distilled student.

        Args:
            method: How.
            factor: Of the published weights.
            seed: Of initial weights and data order.
            teacher: ``'trained'``, ``'random'`` (weights never trained), ``'shuffled'``, or ``'self'``: the plain
                student of the same seed.
        """
        name = f'{method.name}/x{factor:g}/seed{seed}'
        if teacher != 'trained':
            name = f'self_distilled/{name}' if teacher == 'self' else f'{teacher}_teacher/{name}'
        if name in self._made:
            return self._made[name]
        cfg = self.setting.config('student')
        length = stretch(cfg, 1.0)
        role = 'self_distilled' if teacher == 'self' else 'method'
        facts = dict(kind='student', role=role, **_of(method), teacher=teacher, factor=factor, seed=seed)
        facts['epochs'] = length
        source = None
        if teacher in ('trained', 'shuffled'):
            source = self.teacher(teacher)
        elif teacher == 'self':
            source = self.plain(seed)
        return self._distilled(name, facts, cfg, method, source, False)

    def timing(self, method: Method) -> Cell:
        """Steps of a method and of the plain student in turn, for the ratio of their times."""
        name = f'timing/{method.name}'
        if name in self._made:
            return self._made[name]
        cfg = self.setting.config('student')
        stretch(cfg, 1.0)
        facts = dict(kind='timing', role='method', **_of(method), teacher='trained', factor=1.0)
        facts |= dict(seed=self.setting.seeds[0], epochs=1)
        cell = self._distilled(name, facts, cfg, method, self.teacher('trained'), False, ['timing'])
        cell.job.plain, cell.images = self.setting.config('student'), 60 * cell.facts['batch_size']
        loop = cell.job.part.config.train_cfg  # it is left after some thirty steps, however many an epoch has
        loop.update({key: 10**6 for key in ('max_epochs', 'max_iters', 'val_interval') if loop.get(key)})
        return cell

    def named(self, name: str) -> Cell | None:
        """The cell of a name that tuning has not come to yet, such as ``fgd/x5/seed0``; None if there is none."""
        found = re.fullmatch(r'(?:(random|shuffled)_teacher/|(self)_distilled/)?([^/]+)/x([0-9.e+-]+)/seed(\d+)', name)
        if found is None or found[3] not in self.setting.methods:
            return None
        return self.method(
            self.setting.methods[found[3]], float(found[4]), int(found[5]), found[1] or found[2] or 'trained'
        )

    def first_stage(self, method: Method, holdout: bool) -> Cell:
        """A training that comes before a method's own, such as that of FT's paraphrasers: one epoch of Adam."""
        name = f'first_stage/{method.name}' + ('/tune' if holdout else '')
        if name in self._made:
            return self._made[name]
        s = self.setting
        cfg = s.config('student')
        if holdout:
            self._split(cfg)
        source = self.teacher('tune' if holdout and s.teacher_checkpoint is None else 'trained')
        cfg.model = dict(
            type='kd_det.ParaphraserTrainer',
            teacher=dict(config=dict(model=s.config('teacher').model), checkpoint=str(source.weights)),
            distill=method.distill(fragment=method.first_stage),
        )
        cfg.optim_wrapper = dict(
            type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4), clip_grad=dict(max_norm=35, norm_type=2)
        )
        cfg.param_scheduler = []
        cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
        for key in ('val', 'test'):
            cfg[f'{key}_cfg'] = cfg[f'{key}_dataloader'] = cfg[f'{key}_evaluator'] = None
        quiet(cfg)
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1, save_optimizer=False)
        cfg.randomness = dict(seed=s.teacher_seed)
        facts = dict(kind='first_stage', role='first_stage', method=method.name, factor=None, seed=s.teacher_seed)
        facts |= dict(teacher=source.facts['teacher'], epochs=1)
        part = self._part('first_stage', s.teacher_seed, cfg, name, source.digest)
        return self._keep(name, facts, Job(part, first_stage=True), (source.name,), holdout)

    def models(self, method: Method) -> list[Config]:
        """Configs of what a method trains, the first stage first, with teachers of random weights."""
        made = [self.first_stage(method, False)] if method.first_stage else []
        made.append(self.method(method, 1.0, self.setting.seeds[0]))
        found = [copy.deepcopy(cell.job.part.config.model) for cell in made]
        for model in found:
            model.teacher.checkpoint = None
        return found

    def absent(self) -> list[Path]:
        """Annotation files of teacher and student that do not exist."""
        named = [path for who in ('teacher', 'student') for path, _ in self._annotations(self.setting.config(who))]
        return [path for path in dict.fromkeys(named) if not path.is_file()]

    def not_alike(self) -> list[str]:
        """What makes figures of teacher and student no measure of the same thing, or no measure at all."""
        found, images = [], {}
        for who in ('teacher', 'student'):
            cfg = self.setting.config(who)
            images[who] = self._fingerprint(cfg, 'val_dataloader')
            evaluators = cfg.get('val_evaluator') or []
            evaluators = evaluators if isinstance(evaluators, list) else [evaluators]
            if not any(map(_measures, evaluators)):
                named = ', '.join(f'{each.get("type")} of {each.get("metric")}' for each in evaluators) or 'nothing'
                found.append(
                    f"{who}: val_evaluator: found {named}, expected mmdet's CocoMetric with 'bbox' or VOCMetric with "
                    "'mAP', under their own prefix: the report is of mAP."
                )
        if images['teacher'] != images['student']:
            found.append(
                'val_dataloader: teacher and student are measured on different annotation files; expected the same, '
                'since the gap between them is reported.'
            )
        if set(self._fingerprint(self.setting.config('teacher'), 'train_dataloader')) & set(images['student']):
            found.append(
                "train_dataloader: the teacher learns from the images that the student's val_dataloader measures on."
            )
        return found

    # --- how they are made --------------------------------------------------------------------------------------------

    def _distilled(
        self,
        name: str,
        facts: dict,
        cfg: Config,
        method: Method | None,
        source: Cell | None,
        holdout: bool,
        marks: Sequence[str] = (),
    ) -> Cell:
        """A student's cell with a teacher; without a method, a plain one."""
        seed, inputs, needs, make = facts['seed'], list(marks), [], []
        if method is not None:
            who = 'student' if facts['teacher'] == 'self' else 'teacher'
            model = detector_config(self.setting.config(who))
            if source is not None:
                checkpoint = source.weights
                inputs.append(source.digest)
                needs.append(source.name)
            else:
                checkpoint = self.folder / f'random-teacher-{digest_of(without_places(model))[:10]}.pth'
                random = self.setting.config('teacher')
                without_pretrained(random.model)
                make.append((random, RANDOM_TEACHER_SEED, checkpoint))
                inputs.append(['random', RANDOM_TEACHER_SEED, without_places(model)])
            shorter = self.setting.tune['length'] if holdout else 1.0
            terms = method.distill(facts['factor'], length=shorter)
            shown = copy.deepcopy(terms)
            if method.first_stage:
                stage = self.first_stage(method, holdout)
                of_stage = terms.keys() & method.distill(fragment=method.first_stage).keys() if method.parts else terms
                for term in of_stage:
                    terms[term]['loss']['paraphraser'] = str(stage.weights)
                    shown[term]['loss']['paraphraser'] = stage.name
                inputs.append(stage.digest)
                needs.append(stage.name)
            cfg.model = dict(
                type='kd_det.DistillDetector',
                student=cfg.model,
                teacher=dict(config=dict(model=model), checkpoint=str(checkpoint)),
                distill=terms,
                task_weights=method.weights_of_task() or None,
            )
            hooks = [dict(type='kd_det.TermScheduleHook'), *method.hooks]
            cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *hooks]
            if method.no_decay:
                keys = cfg.optim_wrapper.setdefault('paramwise_cfg', {}).setdefault('custom_keys', {})
                keys.update({key: dict(decay_mult=0.0) for key in method.no_decay})
            facts = {**facts, 'distill': shown}
        job, more = self._student(name.split('/')[0], seed, cfg, name, inputs, holdout)
        job.make = make + job.make
        if method is not None and isinstance(checkpoint, Path):
            job.part.teacher = checkpoint
        return self._keep(name, facts, job, (*needs, *more), holdout)

    def _student(
        self, label: str, seed: int, cfg: Config, name: str, inputs: object = None, holdout: bool = False
    ) -> tuple[Job, tuple[str, ...]]:
        """Job of a student from the initial weights of its seed, and the cells that these need."""
        s, plain = self.setting, self.setting.config('student')
        needs, inherit, heritage = (), None, None
        if s.inherit:
            source = self.teacher('tune' if holdout and s.teacher_checkpoint is None else 'trained')
            inherit = (s.config('teacher'), source.weights, s.inherit)
            needs, heritage = (source.name,), [source.digest, s.inherit]
        model = detector_config(plain)
        files = _local_files(model)
        start = digest_of(without_places(model), seed, heritage, *([files] if files else []))
        initial = self.folder / f'initial-seed{seed}-{start[:10]}.pth'
        job = Job(self._part(label, seed, cfg, name, [start, inputs]), make=[(plain, seed, initial)], inherit=inherit)
        job.part.initial = initial
        return job, needs

    def _part(self, label: str, seed: int, cfg: Config, name: str, inputs: object) -> Part:
        if cfg.get('val_dataloader'):
            quiet(cfg)
        cfg.randomness = dict(seed=seed)
        content = without_places(cfg.to_dict())
        teacher = content['model'].get('teacher')
        if isinstance(teacher, dict):
            teacher.pop('config', None)  # ``inputs`` holds what it was trained from
        for key in ('default_hooks', 'visualizer', 'vis_backends', 'log_processor', 'log_level', 'env_cfg', 'work_dir'):
            content.pop(key, None)
        content = {k: v for k, v in content.items() if k in _OUTCOME}
        if '://' in str(cfg.get('load_from')):
            content['load_from'] = cfg.load_from
        files = {**_local_files(cfg.model), **_local_files(dict(load_from=cfg.get('load_from')))}
        if files:
            content['files'] = files
        digest = digest_of(content, seed, self._fingerprint(cfg), self.world, inputs)
        folder = self.folder / 'cells' / f'{re.sub(r"[^A-Za-z0-9.]+", "-", name)}-{digest[:10]}'
        return Part(label, seed, cfg, folder, digest)

    def _keep(self, name: str, facts: dict, job: Job, needs: tuple[str, ...], holdout: bool = False) -> Cell:
        part = job.part
        job.imports = self.imports
        facts = dict(cell=name, setting=self.setting.name, digest=part.digest, **facts)
        facts['split'] = 'holdout' if holdout else 'val'
        facts['batch_size'] = part.config.train_dataloader.batch_size
        images = int(self._count(part.config) * facts['epochs']) if 'max_epochs' in part.config.train_cfg else None
        if images is None:
            images = facts['batch_size'] * facts['epochs']
        facts.setdefault('distill', None)
        if facts['kind'] in ('student', 'tune', 'timing'):
            facts['basis'] = self.basis()
            facts['plan'] = self.plan()
        if facts['kind'] == 'tune':
            tune = {key: value for key, value in self.setting.tune.items() if key != 'factors'}
            facts['tune_basis'] = digest_of(self.basis(), tune)
        self._made[name] = Cell(name, facts, part.digest, tuple(dict.fromkeys(needs)), job, images)
        return self._made[name]

    def basis(self) -> str:
        """Digest of what all students of the setting share: their config, data, versions, and how the teacher came."""
        if self._basis is None:
            cfg = self.setting.config('student')
            length = stretch(cfg, 1.0)
            part = self._part('basis', 0, cfg, 'basis', [length, self.setting.inherit])
            self._basis = digest_of(part.digest, self.teacher('trained').digest)
        return self._basis

    def plan(self) -> dict[str, Any]:
        """What the setting means to measure."""
        s = self.setting
        return dict(
            methods=list(s.methods),
            seeds=list(s.seeds),
            factors=s.tune and list(s.tune['factors']),
            weights=self.weights,
            longer=s.longer,
            as_long_as_teacher=s.as_long_as_teacher,
            self_distilled=s.self_distilled,
            random_teacher=list(s.random_teacher),
            shuffled_teacher=list(s.shuffled_teacher),
        )

    def _split(self, cfg: Config) -> None:
        tune = self.setting.tune
        try:
            split_off(cfg, tune['holdout'], tune['seed'], self.folder / 'split')
        except DataError as error:
            hint = '' if not self.absent() else f' {DATA_ROOT}'
            raise DataError(f'{error}{hint}') from error

    def _annotations(self, cfg: Config, *names: str) -> list[tuple[Path, Any]]:
        """Annotation files, each with its data set's config: of some loaders, or of training and validation."""
        loaders = [cfg.get(name) for name in names or ('train_dataloader', 'val_dataloader')]
        found = [leaf for loader in loaders if loader for leaf in leaves(loader.dataset)]
        return [(_listed(leaf), leaf) for leaf in found if leaf.get('ann_file')]

    def _fingerprint(self, cfg: Config, *names: str) -> list[str]:
        """Digests of the annotation files; with a list of VOC's form, those of the images that it lists."""
        out = []
        for path, leaf in self._annotations(cfg, *names):
            if str(path) not in self._data:
                self._data[str(path)] = _contents(path, leaf)
            out.append(self._data[str(path)])
        return out

    def _count(self, cfg: Config, loader: str = 'train_dataloader') -> int:
        """Images of a loader's set, as its annotation files list them, repeats included."""
        return _count(cfg[loader].dataset, self._images)


#: Parts of a config that an outcome depends on.
_OUTCOME = (
    'model', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper', 'param_scheduler', 'train_cfg',
    'custom_hooks', 'auto_scale_lr',
)  # fmt: skip


def _measures(evaluator: Mapping) -> bool:
    """Whether an evaluator gives an mAP that :func:`~kd_det.bench.part.figures` reads."""
    kind = evaluator.get('type')
    kind = kind if isinstance(kind, type) else METRICS.get(str(kind))
    wanted = {CocoMetric: ('bbox', 'coco'), VOCMetric: ('mAP', 'pascal_voc')}
    for known, (metric, prefix) in wanted.items():
        if isinstance(kind, type) and issubclass(kind, known):
            metrics = evaluator.get('metric', metric)
            metrics = [metrics] if isinstance(metrics, str) else metrics
            return metric in metrics and evaluator.get('prefix') in (None, prefix)
    return False


def _listed(leaf: Any) -> Path:
    """The annotation file of a data set."""
    return Path(leaf.get('data_root') or '', leaf.get('ann_file') or '')


def _contents(path: Path, leaf: Any) -> str:
    """Digest of an annotation file; of a list of VOC's form, also of the XML files that it names."""
    if not path.is_file():
        return 'absent'
    digest = hashlib.sha256(path.read_bytes())
    for file in _boxes_of(leaf) if path.suffix == '.txt' else ():
        digest.update(file.read_bytes() if file.is_file() else b'absent')
    return digest.hexdigest()


def _boxes_of(leaf: Any) -> list[Path]:
    """The XML files of the images that a data set of VOC's form lists, in its order."""
    sub = (leaf.get('data_prefix') or {}).get('sub_data_root', '')
    folder = Path(leaf.get('data_root') or '', sub, leaf.get('ann_subdir') or 'Annotations')
    return [folder / f'{name}.xml' for name in _listed(leaf).read_text().split()]


def _local_files(value: Any, key: str = '') -> dict[str, str]:
    """Weights of the user's that a config starts from: place in the config → SHA-256. Teachers count apart."""
    found: dict[str, str] = {}
    for name, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        here = f'{key}.{name}'
        if name in ('teacher', 'paraphraser'):
            continue
        if isinstance(item, (Mapping, list, tuple)):
            found.update(_local_files(item, here))
        elif name in ('checkpoint', 'load_from') and isinstance(item, str) and Path(item).is_file():
            found[here] = hashlib.sha256(Path(item).read_bytes()).hexdigest()
    return found


def _count(dataset: Any, known: dict[str, int]) -> int:
    if 'datasets' in dataset:
        return sum(_count(each, known) for each in dataset.datasets)
    if 'dataset' in dataset:
        return dataset.get('times', 1) * _count(dataset.dataset, known)
    path = _listed(dataset)
    if str(path) not in known:
        if not path.is_file():
            known[str(path)] = 1
        elif path.suffix == '.json':
            known[str(path)] = len(json.loads(path.read_text())['images'])
        else:
            known[str(path)] = len(path.read_text().split())
    return known[str(path)]
