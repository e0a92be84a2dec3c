"""A setting of the benchmark: one teacher, one student, one data set, and the methods to compare on them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mmengine.config import Config

import kd_det
from kd_det.bench.catalogue import parts_of
from kd_det.datasets.synthetic import SyntheticSpec
from kd_det.engine.config import apply_options, config_path, load_config
from kd_det.errors import ConfigError, did_you_mean

__all__ = ['Method', 'Setting', 'known_methods', 'load_setting']

ROOT = Path(kd_det.__file__).resolve().parents[1]
FRAGMENTS = ROOT / 'configs' / '_base_' / 'distill'
#: What a fragment's terms need in a config besides themselves.
_NEEDS: dict[str, dict[str, Any]] = dict(
    crd=dict(hooks=[dict(type='kd_det.InstanceIdHook')]),
    ctkd=dict(no_decay=['global_T']),
    ctkd_two_stage=dict(no_decay=['global_T']),
    ft=dict(first_stage='ft_paraphraser'),
    ssdkd=dict(scales=['loss.soft_weight', 'loss.l2_weight']),  # its one term holds the task's own losses, too
)
_METHOD_KEYS = ('fragment', 'change', 'terms', 'hooks', 'no_decay', 'first_stage', 'task_weights', 'scales')


@dataclass
class Method:
    """A method as a setting runs it.

    Args:
        name: What the report calls it.
        fragment: Name of a file in ``configs/_base_/distill``, or a path; it defines ``distill``, and perhaps
            ``task_weights``.
        change: Keys that differ from the fragment's in every term, merged in.
        terms: Term → keys that differ in it.
        hooks: More ``custom_hooks``.
        no_decay: Parameters without weight decay, by parts of their names.
        first_stage: Fragment of a training that comes before, such as FT's paraphrasers.
        task_weights: Factors of the student's own losses, instead of the fragment's. They stay whatever the factor.
        scales: What a factor multiplies in each term, dotted: its weight, or the weights inside a loss that holds the
            task's own parts, too. Empty for a method of several parts: what each of them says.
        parts: The methods that it joins, if it is several at once.
    """

    name: str
    fragment: str = ''
    change: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, Any] = field(default_factory=dict)
    hooks: list[dict[str, Any]] = field(default_factory=list)
    no_decay: list[str] = field(default_factory=list)
    first_stage: str | None = None
    task_weights: dict[str, float] | None = None
    scales: list[str] = field(default_factory=lambda: ['weight'])
    parts: list[Method] = field(default_factory=list)

    def distill(self, factor: float = 1.0, fragment: str | None = None, length: float = 1.0) -> dict[str, Any]:
        """The terms, with every weight multiplied.

        Args:
            factor: Of the weights of the fragment.
            fragment: Another fragment, of the first stage.
            length: Of the training; schedules of terms, and of temperatures that learn, are as long as it is.

        Raises:
            ConfigError: If ``terms`` or ``scales`` name what is not there.
        """
        terms = {}
        for name, (term, scales) in self._terms(fragment).items():
            for key in scales:
                *path, last = key.split('.')
                part = term
                for step in path:
                    part = part.get(step, {})
                if last not in part:
                    raise ConfigError(f'methods.{self.name}.scales: no {key!r} in the term {name!r}.')
                part[last] = part[last] * factor
            if length != 1:
                _shorten(term, length)
            terms[name] = term
        return terms

    def _terms(self, fragment: str | None = None) -> dict[str, tuple[dict[str, Any], list[str]]]:
        """Name → a term with the setting's keys, and what a factor multiplies in it."""
        found: dict[str, tuple[dict[str, Any], list[str]]] = {}
        if fragment is not None or not self.parts:
            scales = self.scales if fragment is None else []
            for name, term in _fragment(fragment or self.fragment).distill.to_dict().items():
                found[name] = (term, scales)
        else:
            for part in self.parts:
                for name, (term, scales) in part._terms().items():
                    if name in found:
                        raise ConfigError(f'methods.{self.name}: {part.name} has a second term {name!r}.')
                    found[name] = (term, self.scales or scales)
        for name, (term, _) in found.items():
            merge(term, self.change)
            if name in self.terms:
                merge(term, self.terms[name])
            term['weight'] = term.get('weight', 1.0)
        unknown = set(self.terms) - set(found)
        if unknown and fragment is None:
            raise ConfigError(
                f'methods.{self.name}.terms: no term {sorted(unknown)[0]!r} in {self.fragment}; '
                f'expected one of {", ".join(found)}.{did_you_mean(sorted(unknown)[0], found)}'
            )
        return found

    def imports(self) -> list[str]:
        """Modules that its fragments import, as ``custom_imports`` names them."""
        names = [*(() if self.parts else (self.fragment,)), *([self.first_stage] if self.first_stage else ())]
        found = [_fragment(name).get('custom_imports') or {} for name in names]
        return [name for part in self.parts for name in part.imports()] + [
            name for each in found for name in each.get('imports', [])
        ]

    def weights_of_task(self) -> dict[str, float]:
        """Factors of the student's own losses.

        Raises:
            ConfigError: If parts differ in one.
        """
        if self.task_weights is not None:
            return dict(self.task_weights)
        if not self.parts:
            return dict(_fragment(self.fragment).get('task_weights') or {})
        weights: dict[str, float] = {}
        for part in self.parts:
            for key, value in part.weights_of_task().items():
                if weights.setdefault(key, value) != value:
                    raise ConfigError(
                        f'methods.{self.name}: its parts give {key!r} the task_weights {weights[key]:g} and '
                        f'{value:g}; expected task_weights that say which.'
                    )
        return weights


@dataclass
class Setting:
    """What is compared with what.

    Args:
        name: Short name: that of the setting's file.
        title: For the report, such as ``'RetinaNet R18 to R18/4'``.
        teacher: Config of the teacher, resolved.
        student: Config of the student, resolved. Its schedule, data and optimiser are those of every student.
        teacher_checkpoint: Weights of the teacher; None to train it with its config first.
        teacher_seed: Seed of the teacher's training. One teacher serves all seeds.
        methods: The methods by name.
        seeds: Seeds of initial weights and data order.
        inherit: Parts of the student that start from the teacher's weights, in the plain student too.
        tune: ``dict(factors=[…], length=0.5, holdout=0.25, seed=1000)``: each method's weights are multiplied by each
            factor and trained for ``length`` times the schedule on the training images without a holdout, which
            measures them. None: published weights only.
        longer: How many times the schedule the plain run with the extra compute has; 0 for none.
        as_long_as_teacher: Whether there is a plain run, of the first seed, of as many steps as the teacher had.
        self_distilled: The method by which a student learns from a trained copy of itself; None for no such run.
        random_teacher: Methods that are also run with a teacher of random weights.
        shuffled_teacher: Methods that are also run with a teacher trained on shuffled labels.
        synthetic: Arguments of :class:`~kd_det.datasets.synthetic.SyntheticSpec`, if the set is drawn first.
        data_root: Where the set lies; None for what the configs say.
        options: Config options of student and teacher, as after ``--cfg-options``.
        cache_images: Whether decoded images are kept in memory.
        source: File of the setting, or how it was given.
    """

    name: str
    title: str
    teacher: Path
    student: Path
    teacher_checkpoint: str | None = None
    teacher_seed: int = 0
    methods: dict[str, Method] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    inherit: tuple[str, ...] = ()
    tune: dict[str, Any] | None = None
    longer: float = 0.0
    as_long_as_teacher: bool = False
    self_distilled: str | None = None
    random_teacher: tuple[str, ...] = ()
    shuffled_teacher: tuple[str, ...] = ()
    synthetic: dict[str, Any] | None = None
    data_root: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    cache_images: bool = False
    source: str = ''

    def __post_init__(self) -> None:
        self._configs: dict[str, Config] = {}
        self.left_out: tuple[str, ...] = ()  # methods that --methods did not name
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f'seeds: found {list(self.seeds)}, expected at least one, each once.')
        self.check_controls()
        if not isinstance(self.longer, (int, float)) or (self.longer and self.longer <= 1):
            raise ConfigError(f'longer: found {self.longer!r}, expected more than 1, or 0 for no such run.')
        if self.tune is not None:
            self.tune = _tune(self.tune)
        if self.synthetic is not None:
            known = [f.name for f in fields(SyntheticSpec)]
            for key in self.synthetic:
                if key not in known:
                    raise ConfigError(
                        f'synthetic: unknown key {key!r}; expected {", ".join(known)}.{did_you_mean(key, known)}'
                    )
            SyntheticSpec(**self.synthetic)
            if self.data_root is None:
                raise ConfigError('data_root: missing; expected the folder where the synthetic set is drawn.')

    def check_controls(self) -> None:
        """Refuse controls of methods that are not there, or that have a first stage.

        Raises:
            ConfigError: For the first such name.
        """
        for key in ('random_teacher', 'shuffled_teacher'):
            for name in getattr(self, key):
                self._check_method(name, key)
        if self.self_distilled is not None:
            self._check_method(self.self_distilled, 'self_distilled')
        for name in {*self.random_teacher, *self.shuffled_teacher, self.self_distilled} - {None}:
            if self.methods[name].first_stage:
                raise ConfigError(f'bench: {name!r} has a first stage, of the trained teacher; no control of it here.')

    def _check_method(self, name: str, key: str) -> None:
        if name not in self.methods:
            raise ConfigError(
                f'{key}: {name!r} is none of the methods of this setting.{did_you_mean(name, self.methods)}'
            )

    def config(self, who: str) -> Config:
        """A fresh copy of the teacher's or the student's config, with options and data folder filled in."""
        if who not in self._configs:
            cfg = load_config(getattr(self, who), key=who)
            apply_options(cfg, self.options)
            if not cfg.get('default_scope'):
                cfg.default_scope = 'mmdet'
            if self.data_root is not None:
                _move(cfg, self.data_root)
            if self.synthetic is not None:
                _resize(cfg, self.synthetic.get('image_size', SyntheticSpec.image_size))
            if self.cache_images:
                _cache(cfg)
            self._configs[who] = cfg
        return copy.deepcopy(self._configs[who])


def merge(target: dict[str, Any], change: Mapping[str, Any]) -> None:
    """Merge nested keys into a dict, in place; ``_delete_=True`` replaces a dict instead."""
    for key, value in change.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict) and not value.get('_delete_'):
            merge(target[key], value)
        elif isinstance(value, Mapping):
            target[key] = copy.deepcopy({k: v for k, v in value.items() if k != '_delete_'})
        else:
            target[key] = copy.deepcopy(value)


def _shorten(value: Any, length: float) -> None:
    """Multiply what counts epochs or steps in a term, in place: its schedule, and ``decay_loops`` of a temperature."""
    for key, item in value.items():
        if key == 'schedule' and isinstance(item, dict):
            item.update({k: item[k] * length for k in ('begin', 'warmup', 'end') if item.get(k)})
        elif key == 'decay_loops':
            value[key] = max(1, round(item * length))
        elif isinstance(item, dict):
            _shorten(item, length)


_loaded: dict[Path, Config] = {}


def _fragment(name: str) -> Config:
    path = Path(name) if name.endswith('.py') else FRAGMENTS / f'{name}.py'
    if path not in _loaded:
        if not path.is_file():
            own = name.endswith('.py')
            where = f"'{path.parent.resolve() if own else FRAGMENTS}'"
            raise ConfigError(_no_fragment(name, [where]))
        _loaded[path] = load_config(path)
    return copy.deepcopy(_loaded[path])


def _no_fragment(name: str, folders: list[str]) -> str:
    expected = 'an existing file' if name.endswith('.py') else 'a path that ends in .py'
    return (
        f'methods: no fragment {name!r} in {" or ".join(folders)}; expected the name of one in configs/_base_/distill, '
        f'or {expected}.{did_you_mean(Path(name).stem, known_methods())}'
    )


def known_methods() -> list[str]:
    """Names of the fragments in ``configs/_base_/distill``."""
    return sorted(path.stem for path in FRAGMENTS.glob('*.py'))


def make_method(
    name: str, given: Mapping[str, Any] | None = None, others: Mapping[str, Method] | None = None
) -> Method:
    """A method from what a setting says about it.

    Args:
        name: The fragment's, unless ``given`` names one. Names joined by ``+`` make one method of several.
        given: Keys of :class:`Method`.
        others: Methods of the setting, which joined names mean before fragments.

    Raises:
        ConfigError: For unknown keys, a fragment that does not exist, or parts that do not go together.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError(f'methods.{name}: found {given!r}, expected a dict with {", ".join(_METHOD_KEYS)}.')
    given = dict(given or {})
    for key in given:
        if key not in _METHOD_KEYS:
            raise ConfigError(
                f'methods.{name}: unknown key {key!r}; expected {", ".join(_METHOD_KEYS)}.'
                f'{did_you_mean(key, _METHOD_KEYS)}'
            )
    names = parts_of(name)
    if len(names) > 1 and 'fragment' not in given:
        given = {**_together([(others or {}).get(part) or make_method(part) for part in names]), **given}
    else:
        given.setdefault('fragment', name)
        given = {**_NEEDS.get(Path(given['fragment']).stem, {}), **given}
    method = Method(name, **given)
    method.distill()
    method.weights_of_task()
    return method


def _together(parts: list[Method]) -> dict[str, Any]:
    """What several methods need when they are one."""
    stages = list(dict.fromkeys(part.first_stage for part in parts if part.first_stage))
    if len(stages) > 1:
        raise ConfigError(f'methods: {stages[0]!r} and {stages[1]!r} both come first; expected one at most.')
    hooks = [hook for part in parts for hook in part.hooks]
    return dict(
        fragment='+'.join(part.fragment for part in parts),
        hooks=[hook for i, hook in enumerate(hooks) if hook not in hooks[:i]],
        no_decay=list(dict.fromkeys(key for part in parts for key in part.no_decay)),
        first_stage=stages[0] if stages else None,
        scales=[],
        parts=parts,
    )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _tune(given: Mapping[str, Any]) -> dict[str, Any]:
    known = dict(factors=[0.2, 1.0, 5.0, 25.0], length=0.5, holdout=0.25, seed=1000)
    if not isinstance(given, Mapping):
        raise ConfigError(f'tune: found {given!r}, expected a dict with {", ".join(known)}.')
    for key in given:
        if key not in known:
            raise ConfigError(f'tune: unknown key {key!r}; expected {", ".join(known)}.{did_you_mean(key, known)}')
    tune = {**known, **given}
    numbers = isinstance(tune['factors'], (list, tuple)) and all(_number(f) and f > 0 for f in tune['factors'])
    if not numbers or not tune['factors'] or len(set(tune['factors'])) < len(tune['factors']):
        raise ConfigError(f'tune.factors: found {tune["factors"]}, expected positive numbers, each once.')
    if 1.0 not in tune['factors']:
        raise ConfigError(f'tune.factors: found {tune["factors"]}, expected 1, the published weights, among them.')
    for key in ('length', 'holdout'):
        if not _number(tune[key]) or not 0 < tune[key] <= 1 or (key == 'holdout' and tune[key] == 1):
            raise ConfigError(f'tune.{key}: found {tune[key]!r}, expected a share between 0 and 1.')
    return tune


def load_setting(path: str | Path, **changes: Any) -> Setting:
    """Read a setting from a file with ``bench = dict(…)``, keys as in :class:`Setting`.

    Args:
        path: A Python config file. Configs in it are paths relative to its folder, or ``mmdet::`` names; fragments
            may be relative to its folder or to the current one.
        changes: Keys that replace the file's; those of ``tune`` one by one.

    Raises:
        ConfigError: For a file without ``bench``, unknown or missing keys, or configs that do not exist.
    """
    path = Path(path)
    content = load_config(path, key='setting')
    if not isinstance(content.get('bench'), dict):
        raise ConfigError(f"{path}: 'bench' is missing; expected bench = dict(teacher=…, student=…, methods=dict(…)).")
    given = content.bench.to_dict()
    changes = {k: v for k, v in changes.items() if v is not None}
    if isinstance(changes.get('tune'), Mapping) and isinstance(given.get('tune'), Mapping):
        changes['tune'] = {**given['tune'], **changes['tune']}
    given.update(changes)
    return make_setting(given, name=path.stem, folder=path.parent, source=str(path))


def make_setting(given: Mapping[str, Any], name: str, folder: Path | None = None, source: str = '') -> Setting:
    """A setting from its keys; see :func:`load_setting`."""
    given = dict(given)
    known = [f.name for f in fields(Setting) if f.name not in ('name', 'source')]
    for key in given:
        if key not in known:
            raise ConfigError(f'bench: unknown key {key!r}; expected {", ".join(known)}.{did_you_mean(key, known)}')
    for key in ('teacher', 'student', 'methods'):
        if not given.get(key):
            raise ConfigError(f'bench.{key}: missing.')
    for key in ('teacher', 'student'):
        text = str(given[key])
        if '::' not in text and folder is not None and not Path(text).is_absolute():
            text = str(folder / text)
        given[key] = config_path(text, f'bench.{key}')
    for key in ('methods', 'seeds', 'inherit', 'random_teacher', 'shuffled_teacher'):
        fits = (list, tuple, Mapping) if key == 'methods' else (list, tuple)
        if key in given and not isinstance(given[key], fits):
            raise ConfigError(f'bench.{key}: found {given[key]!r}, expected a list.')
    methods = given['methods']
    methods = methods if isinstance(methods, Mapping) else dict.fromkeys(methods, None)
    made: dict[str, Method] = {}
    for each in sorted(methods, key=lambda name: len(parts_of(name)) > 1):  # what joins others comes after them
        made[each] = make_method(each, _beside(methods[each], folder), made)
    given['methods'] = {each: made[each] for each in methods}
    for key in ('seeds', 'inherit', 'random_teacher', 'shuffled_teacher'):
        if key in given:
            given[key] = tuple(given[key])
    given.setdefault('title', name)
    return Setting(name=name, source=source, **given)


def _beside(method: Any, folder: Path | None) -> Any:
    """What a setting says about a method, with fragments that lie in the setting's folder named in full.

    Raises:
        ConfigError: If a file is neither there nor in the current folder.
    """
    if not isinstance(method, Mapping) or folder is None:
        return method
    names = {key: str(method[key]) for key in ('fragment', 'first_stage') if method.get(key)}
    paths = {key: folder / name for key, name in names.items() if name.endswith('.py')}
    for key, path in paths.items():
        if not path.is_file() and not Path(names[key]).is_file():
            folders = [path.parent.resolve(), Path(names[key]).parent.resolve()]
            raise ConfigError(_no_fragment(names[key], [f"'{each}'" for each in dict.fromkeys(folders)]))
    return {**method, **{key: str(path) for key, path in paths.items() if path.is_file()}}


def first_to_teach_itself(names: list[str]) -> str | None:
    """The first of some methods by which a student can learn from a copy of itself: one without a first stage."""
    return next((name for name in names if make_method(name).first_stage is None), None)


def only_methods(setting: Setting, names: list[str]) -> None:
    """Keep some methods of a setting; those that it does not list are added with their fragments.

    Raises:
        ConfigError: For a name that is neither in the setting nor a fragment.
    """
    chosen = {name: setting.methods.get(name) or make_method(name, others=setting.methods) for name in names}
    setting.left_out = tuple(name for name in setting.methods if name not in chosen)
    setting.methods = chosen
    setting.random_teacher = tuple(name for name in setting.random_teacher if name in chosen)
    setting.shuffled_teacher = tuple(name for name in setting.shuffled_teacher if name in chosen)
    if setting.self_distilled not in chosen:
        setting.self_distilled = None


def leaves(dataset: Any) -> list[Any]:
    """The data sets with images inside wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    if 'datasets' in dataset:
        return [leaf for each in dataset.datasets for leaf in leaves(each)]
    return leaves(dataset.dataset) if 'dataset' in dataset else [dataset]


def loaders(cfg: Config) -> list[Any]:
    """The data loaders of a config."""
    names = ('train_dataloader', 'val_dataloader', 'test_dataloader')
    return [cfg[name] for name in names if cfg.get(name)]


def _move(cfg: Config, root: str) -> None:
    for loader in loaders(cfg):
        for leaf in leaves(loader.dataset):
            leaf.data_root = root
    for split in ('val', 'test'):
        evaluator = cfg.get(f'{split}_evaluator') or []
        for each in evaluator if isinstance(evaluator, list) else [evaluator]:
            if each.get('ann_file'):
                each['ann_file'] = str(Path(root, leaves(cfg[f'{split}_dataloader'].dataset)[0].ann_file))


def _resize(cfg: Config, side: int) -> None:
    for loader in loaders(cfg):
        for leaf in leaves(loader.dataset):
            for step in leaf.pipeline:
                if step.type == 'Resize':
                    step.scale = (side, side)


def _cache(cfg: Config) -> None:
    for loader in loaders(cfg):
        for leaf in leaves(loader.dataset):
            for step in leaf.pipeline:
                if step.type in ('LoadImageFromFile', 'mmdet.LoadImageFromFile'):
                    step.update(type='kd_det.LoadImageOnce', max_images=100_000)
