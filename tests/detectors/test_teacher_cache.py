"""Readings kept on disk: what is replayed, what is computed, what is refused, and files that cannot be trusted."""

import copy
import importlib
import itertools
import json
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.models import RetinaNet
from mmdet.registry import MODELS
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from tiny_models import (
    CAFFE,
    batch,
    build,
    cwd,
    deformable,
    distiller,
    fcos,
    gfl,
    preprocessor,
    raw_batch,
    retina,
    total,
)
from torch.utils.data import DataLoader

import kd_det.hooks.teacher_cache
from kd_det.detectors import Teacher, reading_store, teacher_cache
from kd_det.detectors.plan import probe_batch, untouched
from kd_det.detectors.reading_store import GIB, ReadingStore
from kd_det.detectors.teacher_cache import TeacherCache
from kd_det.errors import ConfigError
from kd_det.taps import Tap, TapSet


@pytest.fixture
def said(caplog):
    """What is logged: a function that gives the messages with a text in them."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger.name):
        yield lambda text='', level='': [
            r.getMessage() for r in caplog.records if text in r.getMessage() and level in r.levelname
        ]
    logger.removeHandler(caplog.handler)


class Seer:
    """A tiny teacher with taps and, where a folder is given, a cache; it counts how often its network runs."""

    def __init__(self, folder=None, taps='neck', cfg=None, seed=0, limit_gib=1.0, autocast=False, **options):
        torch.manual_seed(seed)
        cache = None if folder is None else dict(path=str(folder), limit_gib=limit_gib)
        self.teacher = Teacher.from_config(dict(config=cfg or retina(), checkpoint=None, cache=cache, **options))
        self.taps = TapSet(self.teacher.model, [Tap.parse(t) for t in taps.split()], 'teacher', guest=True)
        self.teacher.load()
        with untouched(self.teacher.model):
            self.taps.watch_versions()
            self.teacher.probe(*probe_batch((64, 96), torch.device('cpu')), self.taps, 'teacher')
            self.taps.copy_overwritten()
        self.cache, self.autocast, self.prepared, self.runs = self.teacher.cache, autocast, False, 0
        self.teacher.model.backbone.register_forward_pre_hook(self._ran)
        if self.cache is not None:
            self._open, self.cache._open = self.cache._open, self._opened

    def _ran(self, *_):
        self.runs += 1

    def _opened(self, *args):
        self._open(*args)
        self.runs = 0

    def __call__(self, images, samples):
        """The readings; ``runs`` is then how often the network ran for them, beside preparations."""
        with torch.autocast('cpu', torch.bfloat16, enabled=self.autocast):
            if not self.prepared:
                self.teacher.prepare(images, samples, self.taps)
                self.prepared = True
            self.runs = 0
            self.teacher.observe(images, samples, self.taps)
        readings = [copy.deepcopy(recorder.data_buffer) for recorder in self.taps.recorders.values()]
        self.taps.clear()
        return readings

    def replays(self, images, samples):
        """Whether the readings of a batch come from files."""
        before = self.cache.counts()[2]
        self(images, samples)
        replayed = self.cache.counts()[2] - before
        assert replayed in (0, len(images)) and (not replayed or not self.runs)
        return bool(replayed)


def same(a, b):
    """Equal in structure, types and every bit, memory layout included."""
    if isinstance(a, torch.Tensor):
        bits = [x.contiguous().view(torch.uint8) if x.dim() else x for x in (a, b)]
        return a.dtype == b.dtype and a.stride() == b.stride() and a.shape == b.shape and torch.equal(*bits)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def pictures(seeds, sizes=(64, 96), **options):
    """A normalised batch of one image per seed, each the same in whatever batch."""
    model = SimpleNamespace(data_preprocessor=build(retina(), init=False).data_preprocessor)
    parts = [raw_batch(sizes=[sizes], boxes=[2], seed=seed) for seed in seeds]
    raw = dict(inputs=[p['inputs'][0] for p in parts], data_samples=[p['data_samples'][0] for p in parts])
    for seed, sample in zip(seeds, raw['data_samples']):
        sample.set_metainfo(dict(img_id=seed, img_path=f'{seed}.png', flip=False))
    data = model.data_preprocessor(raw, True)
    return data['inputs'], data['data_samples']


# ----------------------------------------------------------------------------------------------- replays equal the live


@pytest.mark.parametrize(
    'cfg, taps',
    [
        (retina, 'neck'),
        (retina, 'backbone.layer3@pre neck neck.fpn_convs.0@in bbox_head'),
        (gfl, 'bbox_head.cls_convs.0 bbox_head[0]'),
        (deformable, 'encoder decoder bbox_head'),
    ],
)
def test_replays_are_those_of_the_live_teacher_bit_for_bit(tmp_path, cfg, taps):
    plain, first, again = (Seer(folder, taps, cfg()) for folder in (None, tmp_path, tmp_path))
    for seeds in ([1, 2], [3, 4]):
        data = pictures(seeds)
        live = plain(*copy.deepcopy(data))
        assert same(first(*copy.deepcopy(data)), live)
        assert again.replays(*copy.deepcopy(data))
        assert same(again(*copy.deepcopy(data)), live) and again.runs == 0
    assert not first.cache.off and first.cache.counts()[2] == 0 and first.cache.counts()[3] == 4


@pytest.mark.parametrize(
    'options', [dict(precision='bf16'), dict(autocast=True), dict(fold=False, channels_last=False)]
)
def test_half_precision_is_kept_as_it_is_and_replayed_bit_for_bit(tmp_path, options):
    plain, first, again = (Seer(folder, **options) for folder in (None, tmp_path, tmp_path))
    data = pictures([1, 2])
    live = plain(*data)
    assert same(first(*data), live) and same(again(*data), live) and again.runs == 0
    names = [f'{path.parent.parent.name}/{path.stem}' for path in tmp_path.rglob('*.kdr')]
    dtypes = {t.dtype for name in names for t in again.cache.store.get(name)[1]}
    assert dtypes == {torch.float32 if 'fold' in options else torch.bfloat16}


def test_losses_and_gradients_of_the_student_are_equal(tmp_path):
    def step(model, data):
        losses = model.loss(*copy.deepcopy(data))
        model.zero_grad()
        total(losses).backward()
        return {k: v for k, v in losses.items() if k == 'loss_a'}, [p.grad.clone() for p in model.parameters()]

    def model(**engine):
        return distiller(retina(), retina(channels=24), dict(a=cwd()), engine=engine)

    plain, cached = model(), model(cache=dict(path=str(tmp_path)))
    later = model(cache=dict(path=str(tmp_path)))
    data = batch(plain, sizes=[(64, 96), (50, 70)])
    expected = step(plain, data)
    for one in (cached, cached, later):
        found = step(one, data)
        assert torch.equal(found[0]['loss_a'], expected[0]['loss_a'])
        assert all(map(torch.equal, found[1], expected[1]))
    assert cached.teacher.cache.counts() == [4, 2, 2, 2] and later.teacher.cache.counts() == [2, 2, 2, 0]
    assert plain.teacher.cache is None  # off by default


@pytest.mark.parametrize('taps', ['neck', 'bbox_head'])
def test_other_orders_and_other_company_are_replayed_bit_for_bit(tmp_path, taps):
    plain, cached = Seer(None, taps), Seer(tmp_path, taps)
    for seeds in ([1, 2, 3], [4, 5, 6]):
        cached(*pictures(seeds))
    for seeds in ([3, 1, 2], [6, 2, 4], [1, 1, 1]):
        data = pictures(seeds)
        assert same(cached(*data), plain(*data)) and cached.runs == 0


def place_matters(teacher):
    """As of kernels that round the last image of a batch otherwise."""

    def hook(module, inputs, outputs):
        return tuple(torch.cat([x[:-1], x[-1:] * (1 + 1e-6)]) for x in outputs)

    teacher.model.neck.register_forward_hook(hook, prepend=True)


def test_where_the_place_in_the_batch_changes_bits_it_is_part_of_the_key(tmp_path):
    plain, cached = Seer(), Seer(tmp_path)
    for seer in (plain, cached):
        place_matters(seer.teacher)
    cached(*pictures([1, 2]))
    assert cached.replays(*pictures([1, 2])) and not cached.replays(*pictures([2, 1]))
    later = Seer(tmp_path)  # does not know yet, and has nothing to learn
    place_matters(later.teacher)
    for seeds in ([1, 2], [2, 1], [1, 1], [2, 2]):
        data = pictures(seeds)
        assert later.replays(*data) and same(later(*data), plain(*data))


# ----------------------------------------------------------------------------------------------- what decides a reading


def test_any_other_pixel_shape_or_number_of_images_is_computed(tmp_path):
    cached = Seer(tmp_path)
    images, samples = pictures([1, 2])
    cached(images, samples)
    assert cached.replays(images, samples)
    one = images.clone()
    one[1, 2, -1, -1] += 1e-3
    padded = torch.nn.functional.pad(images, (0, 32))
    for other in (one, images.flip(-1), padded, images.double()[:1].float(), images.roll(1, 1)):
        assert not cached.replays(other, samples[: len(other)])
    assert cached.replays(images, samples)


def test_padding_and_normalisation_of_its_own_are_part_of_the_pixels(tmp_path):
    student = build(retina(), init=False)
    seen = []
    for options in ({}, CAFFE, dict(CAFFE, pad_value=-7.0)):
        seer = Seer(tmp_path, cfg=retina(data_preprocessor=preprocessor(**options)))
        seer.teacher.see_as(student)
        seen.append(seer.replays(*batch(student, sizes=[(64, 96), (50, 70)])))
    assert seen == [False] * 3


@pytest.mark.parametrize(
    'options',
    [
        dict(seed=1),
        dict(cfg=retina(backbone=dict(retina()['backbone'], strides=(1, 1, 2, 2)))),
        dict(precision='bf16'),
        dict(fold=False),
        dict(channels_last=False),
        dict(autocast=True),
        dict(taps='neck neck.fpn_convs.0'),
        dict(taps='neck.fpn_convs.0'),
    ],
    ids=str,
)
def test_another_teacher_or_another_way_to_run_it_is_computed(tmp_path, options):
    data = pictures([1, 2])
    Seer(tmp_path)(*data)
    assert not Seer(tmp_path, **options).replays(*data)
    assert Seer(tmp_path, **options).replays(*data)
    assert Seer(tmp_path).replays(*data)


@pytest.mark.parametrize(
    'change',
    [
        lambda m: m.setattr(torch, '__version__', '9.9'),
        lambda m: m.setattr(teacher_cache, '__version__', '9.9'),
        lambda m: m.setattr(torch, 'get_num_threads', lambda: 7),
        lambda m: m.setattr(torch, 'get_float32_matmul_precision', lambda: 'medium'),
        lambda m: m.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'other'),
        lambda m: m.setattr(teacher_cache, '_compiled', lambda model: (True, False)),
        lambda m: m.setattr(teacher_cache.importlib.metadata, 'version', lambda name: '9.9'),
    ],
    ids=['torch', 'kd_det', 'threads', 'matmul', 'processor', 'compiled', 'packages'],
)
def test_other_libraries_settings_or_processors_are_computed(tmp_path, monkeypatch, change):
    data = pictures([1, 2])
    Seer(tmp_path)(*data)
    change(monkeypatch)
    assert not Seer(tmp_path).replays(*data)


@pytest.mark.parametrize(
    'owner, name, value',
    [
        (torch.backends.cuda.matmul, 'allow_fp16_reduced_precision_reduction', False),
        (torch.backends.cuda.matmul, 'allow_bf16_reduced_precision_reduction', False),
        (torch.backends.cuda.matmul, 'allow_fp16_accumulation', True),
        (torch.backends.mkldnn, 'deterministic', True),
        (getattr(torch.backends.mkldnn, 'conv', None), 'fp32_precision', 'bf16'),
        (getattr(torch.backends.mkldnn, 'matmul', None), 'fp32_precision', 'bf16'),
        (torch.backends.cuda, 'flash_sdp_enabled', lambda: 'other'),
        (torch.backends.cuda, 'math_sdp_enabled', lambda: 'other'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_settings_of_torch_are_part_of_the_key(tmp_path, owner, name, value):
    if not hasattr(owner, name):
        pytest.skip(f'this torch has no {name}')
    data, before = pictures([1, 2]), getattr(owner, name)
    seer = Seer(tmp_path)
    seer(*data)
    try:
        setattr(owner, name, value)
        assert not seer.replays(*data)
    finally:
        setattr(owner, name, before)
    assert seer.replays(*data)


def test_the_key_asks_whether_a_part_is_compiled_now(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, 'compile', lambda function: function)
    seer = Seer(tmp_path, compile=True)
    parts = {name: getattr(seer.teacher.model, name) for name in ('backbone', 'neck')}
    assert teacher_cache._compiled(seer.teacher.model) == (False, False)
    seer.teacher._compile(seer.taps)
    assert teacher_cache._compiled(seer.teacher.model) == (True, True)
    parts['neck'].forward.state['use'] = False  # it failed
    assert teacher_cache._compiled(seer.teacher.model) == (True, False)


def test_what_a_network_looks_at_in_the_samples_is_part_of_the_key(tmp_path):
    """A DETR masks what is padding, which the pixels need not tell; a neck never asks."""
    images, samples = pictures([1, 2])
    smaller = copy.deepcopy(samples)
    smaller[1].set_metainfo(dict(img_shape=(64, 64)))
    detr, plain = Seer(tmp_path / 'detr', 'encoder', deformable()), Seer(None, 'encoder', deformable())
    detr(images, samples)
    assert detr.replays(images, samples)
    assert not same(plain(images, samples), plain(images, smaller))
    assert not detr.replays(images, smaller) and detr.replays(images, smaller)
    assert same(detr(images, smaller), plain(images, smaller)) and detr.runs == 0
    neck = Seer(tmp_path / 'neck')
    neck(images, samples)
    assert neck.replays(images, smaller)


class Prompted(RetinaNet):
    """Weighs its maps by what the samples say."""

    def extract_feat(self, images, samples=None):
        maps = super().extract_feat(images)
        if samples is None:
            return maps
        told = [len(s.get('text', '')) + s.proposals.scores.sum() if 'proposals' in s else 0 for s in samples]
        return tuple(x * (1 + torch.tensor(told).view(-1, 1, 1, 1)) for x in maps)

    def _forward(self, images, samples=None):
        return self.bbox_head(self.extract_feat(images, samples))


@pytest.fixture
def prompted():
    MODELS.register_module(module=Prompted)
    yield retina(type='Prompted')
    MODELS._module_dict.pop('Prompted')


def test_prompts_proposals_and_metainfo_of_ones_own_are_part_of_the_key(tmp_path, prompted):
    def told(text='a cat', score=0.5, **metainfo):
        images, samples = pictures([1, 2])
        for sample in samples:
            sample.set_metainfo(dict(text=text, tokens_positive={0: [[0, 1]], 'a': None}) | metainfo)
            sample.proposals = InstanceData(bboxes=torch.ones(1, 4), scores=torch.tensor([score]))
        return images, samples

    cached, plain = (Seer(folder, 'bbox_head', copy.deepcopy(prompted)) for folder in (tmp_path, None))
    cached(*told())
    assert cached.replays(*told()) and cached.replays(*told(img_id=9, img_path='b.png'))  # of other names
    for options in (dict(text='a traffic light'), dict(score=0.25), dict(tokens_positive={0: [[0, 2]]}), dict(own=1)):
        live = plain(*told(**options))
        assert same(cached(*told(**options)), live) and cached.runs and cached.replays(*told(**options))


def test_samples_that_no_text_tells_switch_it_off_for_networks_that_look(tmp_path, prompted, said):
    images, samples = pictures([1, 2])
    for sample in samples:
        sample.set_metainfo(dict(own=object()))
    neck, looking = Seer(tmp_path), Seer(tmp_path / 'looking', 'bbox_head', prompted)
    assert not neck.replays(images, samples) and neck.replays(images, samples)  # never asks
    assert not looking.replays(images, samples) and not looking.replays(images, samples)
    assert 'looks at the data samples, which hold a object' in said('switched off', 'WARN')[0]
    assert looking.cache.off and not neck.cache.off and not files(tmp_path / 'looking')


def test_a_network_that_looks_later_on_is_noticed(tmp_path):
    detr, data = Seer(tmp_path, 'encoder', deformable()), pictures([3, 4])
    detr(*pictures([1, 2]))
    before = files(tmp_path)
    detr.cache._looks = False  # as if the first images had given no reason to look
    detr(*data)
    assert files(tmp_path) == before and detr.cache._looks
    assert not detr.replays(*data) and len(files(tmp_path)) == 4 and detr.replays(*data)


OWN = """
from kd_det.registry import MODELS
from mmdet.models import FPN

@MODELS.register_module(force=True)
class OwnFPN(FPN):
    def forward(self, x):
        return tuple(SCALE * o for o in super().forward(x))
"""


def test_modules_of_ones_own_are_computed_anew_when_their_file_changes(tmp_path, monkeypatch, said):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, 'dont_write_bytecode', True)
    cfg = retina()
    cfg['neck']['type'] = 'kd_det.OwnFPN'
    data = pictures([1, 2])

    def seer(scale, folder=tmp_path / 'c'):
        (tmp_path / 'own_neck.py').write_text(OWN.replace('SCALE', scale))
        sys.modules.pop('own_neck', None)
        importlib.invalidate_caches()
        importlib.import_module('own_neck')
        return Seer(folder, cfg=copy.deepcopy(cfg))

    try:
        assert not seer('1.0').replays(*data) and seer('1.0').replays(*data)
        live, cached = seer('2.0', None)(*data), seer('2.0')
        assert same(cached(*data), live) and cached.runs and cached.replays(*data)
        assert seer('1.0').replays(*data)  # and back
        unknown = seer('1.0')
        del sys.modules['own_neck']
        assert not unknown.replays(*data) and 'no source file of own_neck.OwnFPN' in said('switched off', 'WARN')[0]
    finally:
        sys.modules.pop('own_neck', None)
        MODELS._children['kd_det']._module_dict.pop('OwnFPN')


def test_configs_are_the_same_in_every_process(tmp_path):
    class Thing:
        pass

    def key(**config):
        return TeacherCache(str(tmp_path), config=config)._config

    mixed = {1: 2, 'a': 3, (4, 5): dict(b=torch.float16, c=Path('x'), d={'q', 'r'}, e=torch.nn.ReLU)}
    assert key(x=mixed) == key(x=dict(reversed(mixed.items())))
    values = [1, 1.0, True, '1', None, {1: 2}, {'1': 2}, [1], [[1]], {1}, np.arange(2), np.arange(2.0), torch.ones(2)]
    values += [torch.zeros(2), torch.nn.ReLU, torch.nn.GELU, 'torch.nn.modules.activation.ReLU', torch.float16, mixed]
    assert len({key(x=value) for value in values}) == len(values)
    for bad in (Thing(), lambda: 0):
        with pytest.raises(
            ConfigError, match=r"model.teacher.cache: the teacher's config holds a (Thing|function), of"
        ):
            key(x=[bad])


def test_files_tell_people_what_they_are(tmp_path):
    seer = Seer(tmp_path)
    images, samples = pictures([1, 2])
    samples[1].set_metainfo(dict(flip=True, flip_direction='horizontal'))
    seer(images, samples)
    found = {}
    for path in tmp_path.rglob('*.kdr'):
        text = path.read_bytes()[24:].split(b'\n')[0].decode(errors='ignore')
        found.update(
            {json.JSONDecoder().raw_decode(text)[0]['image']['img_id']: json.JSONDecoder().raw_decode(text)[0]}
        )
    assert set(found) == {1, 2} and found[2]['image']['img_path'] == '2.png'
    assert (found[1]['image']['flip'], found[2]['image']['flip']) == (False, True)
    about = json.loads(next(tmp_path.rglob('teacher.json')).read_text())
    assert about['versions']['torch'] == torch.__version__ and about['taps'][0][0] == 'neck' and about['fold'] is True


# -------------------------------------------------------------------------------------------------- missing and damaged


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*.kdr')}


def test_a_batch_with_a_missing_image_is_computed_whole_and_the_missing_one_written(tmp_path):
    cached, plain = Seer(tmp_path), Seer()
    cached(*pictures([1, 2]))
    before = files(tmp_path)
    data = pictures([1, 3])
    assert same(cached(*data), plain(*data)) and cached.cache.counts() == [4, 1, 0, 3]
    after = files(tmp_path)
    assert len(after) == 3 and before.items() <= after.items()
    assert cached.replays(*pictures([3, 2]))


def test_a_damaged_file_is_computed_anew_and_repaired(tmp_path, said):
    cached, plain, data = Seer(tmp_path), Seer(), pictures([1, 2])
    live = plain(*data)
    cached(*data)
    path = next(iter(files(tmp_path)))
    whole = path.read_bytes()
    for place in (len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert same(cached(*data), live) and cached.runs == 1
        assert path.read_bytes() == whole
        assert cached.replays(*data)
    assert len(said('damaged', 'WARN')) == 1


def test_readings_of_two_forms_are_not_put_together(tmp_path):
    """Whole files whose readings differ in form, as if by another program: computed."""
    cached, data = Seer(tmp_path), pictures([1, 2])
    cached(*data)
    name = next(f'{p.parent.parent.name}/{p.stem}' for p in files(tmp_path))
    notes, tensors = cached.cache.store.get(name)
    cached.cache.store.put(name, dict(notes, readings=['list']), tensors)
    assert not cached.replays(*data)


# ----------------------------------------------------------------------------------------- what cannot be kept or split


def test_readings_without_a_batch_dimension_switch_it_off(tmp_path, said):
    cached = Seer(tmp_path)
    flat = dict(prepend=True)
    cached.teacher.model.neck.register_forward_hook(lambda m, i, o: tuple(x.flatten(0, 1) for x in o), **flat)
    for seeds in ([1, 2], [1, 2]):
        readings = cached(*pictures(seeds))
        assert readings[0][0][0].dim() == 3 and cached.runs == 1  # as ever
    assert [text for text in said('switched off') if 'no batch dimension' in text] == said('switched off')
    assert len(said('switched off', 'WARN')) == 1 and not files(tmp_path)


COUNT = itertools.count()  # a clock that no machine slows down


@pytest.mark.parametrize(
    'hook, reason',
    [
        (lambda m, i, o: tuple(x - x.mean((0, 2, 3), keepdim=True) for x in o), 'other images of its batch'),
        (lambda m, i, o: tuple(x + torch.randn(1) for x in o), 'random numbers'),
        (lambda m, i, o: tuple(x + np.random.rand() for x in o), 'random numbers'),
        (lambda m, i, o: tuple(x + random.random() for x in o), 'random numbers'),
        (lambda m, i, o: tuple(x + 0.01 * next(COUNT) for x in o), 'other images'),
        (lambda m, i, o: SimpleNamespace(maps=o), 'SimpleNamespace'),
        (lambda m, i, o: [x[None] for x in o[0]], 'no batch dimension'),
    ],
)
def test_readings_that_an_image_alone_does_not_decide_switch_it_off(tmp_path, said, hook, reason):
    cached = Seer(tmp_path)
    cached.teacher.model.neck.register_forward_hook(hook, prepend=True)
    for _ in range(2):
        cached(*pictures([1, 2]))
        assert cached.runs == 1
    assert len(said('switched off', 'WARN')) == 1 and reason in said('switched off')[0]
    assert not files(tmp_path) and cached.cache.off
    cached.cache.end_epoch()
    assert not said('replayed')


def test_trials_leave_every_generator_as_it_was(tmp_path):
    states = []
    for folder in (None, tmp_path):
        seer = Seer(folder)
        hook = seer.teacher.model.neck.register_forward_hook(
            lambda m, i, o: tuple(x + torch.randn(1) + np.random.rand() + random.random() for x in o), prepend=True
        )
        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        seer(*pictures([1, 2]))
        hook.remove()
        states.append((torch.rand(1).item(), np.random.rand(), random.random()))
    assert states[0] == states[1]


def test_numbers_that_differ_from_run_to_run_later_on_switch_it_off(tmp_path, said):
    cached = Seer(tmp_path)
    cached(*pictures([1, 2]))
    cached.teacher.model.neck.register_forward_hook(
        lambda m, i, o: tuple(x + 0.01 * next(COUNT) for x in o), prepend=True
    )
    before = files(tmp_path)
    cached(*pictures([1, 2, 3]))
    assert 'two runs on the same images' in said('switched off', 'WARN')[0] and files(tmp_path) == before


def test_a_batch_of_another_layout_is_not_kept(tmp_path, said):
    cached = Seer(tmp_path)
    cached(*pictures([1, 2]))
    before = files(tmp_path)
    cached.teacher.model.neck.register_forward_hook(lambda m, i, o: tuple(x.flatten(0, 1) for x in o), prepend=True)
    cached(*pictures([3, 4]))
    assert files(tmp_path) == before and len(said('another layout', 'WARN')) == 1


CACHE = dict(path='never_made')


@pytest.mark.parametrize(
    'terms, options, message',
    [
        (dict(a=cwd()), dict(teacher=dict(ema=True, cache=CACHE)), 'model.teacher.cache: a moving average'),
        (
            dict(
                a=dict(
                    cwd('bbox_head'), loss=dict(type='kd_det.CrossKDLoss'), adapter=dict(type='kd_det.CrossHead', idx=1)
                )
            ),
            {},
            'model.teacher.cache: distill.a runs parts of the teacher',
        ),
        (dict(a=cwd('neck', 'student:neck')), {}, 'model.teacher.cache: no term reads.*self-distillation'),
        (dict(a=cwd('bbox_head.loss_by_feat()', 'bbox_head.loss_by_feat()')), {}, 'read while its loss is computed'),
        (dict(a=cwd()), dict(teacher=dict(cache=CACHE)), 'model.teacher.config: missing'),
    ],
    ids=['ema', 'head on features', 'self', 'loss', 'no config'],
)
def test_what_cannot_be_cached_is_refused_when_the_model_is_built(terms, options, message):
    with pytest.raises(ConfigError, match=message):
        if options:
            build(dict(type='kd_det.DistillDetector', student=retina(), distill=terms, **options))
        else:
            student = retina()
            student['bbox_head']['stacked_convs'] = 2
            distiller(student, copy.deepcopy(student), terms, engine=dict(cache=CACHE))
    assert not os.path.exists('never_made')


def test_a_second_stage_on_the_students_rois_is_refused():
    from tiny_models import faster

    rows = dict(student='roi_head.bbox_head[0]', teacher='roi_head.bbox_head[0]', loss=dict(type='kd_det.KDLoss'))
    rows['adapter'] = dict(type='kd_det.RoIRows')
    distiller(faster(), faster(), dict(a=rows), init=False)
    with pytest.raises(
        ConfigError, match='model.teacher.cache: distill.a runs parts of the teacher on features or RoIs'
    ):
        distiller(faster(), faster(), dict(a=rows), init=False, engine=dict(cache=CACHE))


@pytest.mark.parametrize(
    'cache, message',
    [
        ('folder', r"model.teacher.cache: found 'folder', expected dict\(path="),
        (dict(limit_gib=5), 'model.teacher.cache: found .*limit_gib.*expected dict'),
        (dict(path='c', limit=5), "unknown key 'limit'; expected path, limit_gib. Nearest: 'limit_gib'"),
        (dict(path=3), 'model.teacher.cache.path: found 3, expected a folder'),
        (dict(path=__file__), 'model.teacher.cache.path: .* is a file'),
        (dict(path='c', limit_gib=0), 'model.teacher.cache.limit_gib: found 0, expected a positive number'),
        (dict(path='c', limit_gib='5'), "model.teacher.cache.limit_gib: found '5'"),
    ],
)
def test_wrong_options_are_refused(cache, message):
    with pytest.raises(ConfigError, match=message):
        Teacher.from_config(dict(config=retina(), checkpoint=None, cache=cache))


def test_one_of_several_teachers_may_have_a_cache(tmp_path):
    cached = dict(config=retina(), checkpoint=None, cache=dict(path=str(tmp_path)))
    teachers = dict(one=cached, two=dict(config=fcos(), checkpoint=None))
    terms = dict(a=cwd('neck', 'one:neck'), b=cwd('neck', 'two:neck'))
    model = build(dict(type='kd_det.DistillDetector', student=retina(), teacher=teachers, distill=terms))
    data = batch(model)
    first, again = (model.loss(*copy.deepcopy(data)) for _ in range(2))
    assert torch.equal(first['loss_a'], again['loss_a']) and torch.equal(first['loss_b'], again['loss_b'])
    assert model.teachers['one'].cache.counts() == [4, 2, 2, 2] and model.teachers['two'].cache is None
    assert not any('cache' in key for key in model.state_dict())


# ----------------------------------------------------------------------------------------------- size, limit, full disk


def test_it_says_its_size_before_it_starts(tmp_path, said, monkeypatch):
    monkeypatch.setattr(reading_store.shutil, 'disk_usage', lambda path: SimpleNamespace(free=8 * GIB))
    cached = Seer(tmp_path / 'new' / 'folder', limit_gib=2)
    cached.cache.images = 1000
    images, samples = pictures([1, 2])
    each = sum(t.numel() for t in Seer()(images[:1], samples[:1])[0][0]) * 4
    cached.teacher.prepare(images, samples, cached.taps)
    assert not said('keeps')
    cached.teacher.observe(images, samples, cached.taps)
    (text,) = said('keeps')
    assert f'keeps {each / 1024:.1f} KiB an image' in text and f'1000 images: {each * 1000 / 2**20:.1f} MiB' in text
    assert '0 bytes there, limit 2.0 GiB, 7.0 GiB of disk to use' in text and not said('there is room')
    cached = Seer(tmp_path)
    cached.cache.images = 10**6
    cached(images, samples)
    assert len(said('there is room for', 'WARN')) == 1 and 'how many images' not in said('keeps')[1]
    Seer(tmp_path)(images, samples)
    assert "dict(type='kd_det.TeacherCacheHook')" in said('keeps')[2]


def test_at_its_limit_it_stops_writing_and_goes_on(tmp_path, said):
    images, samples = pictures([1, 2])
    Seer(tmp_path / 'probe')(images, samples)
    size = max(path.stat().st_size for path in files(tmp_path / 'probe'))
    text = sum(path.stat().st_size for path in (tmp_path / 'probe').rglob('teacher.json'))
    cached, plain = Seer(tmp_path / 'c', limit_gib=(text + 3.5 * size) / GIB), Seer()
    for seeds in ([1, 2], [3, 4], [5, 6], [1, 2], [3, 4]):
        data = pictures(seeds)
        assert same(cached(*data), plain(*data))
    assert len(files(tmp_path / 'c')) == 3 and cached.cache.counts() == [10, 3, 2, 3]
    assert len(said('nothing more is written', 'WARN')) == 1 and 'limit of' in said('nothing more')[0]
    assert not list((tmp_path / 'c').rglob('*.tmp'))


@pytest.mark.parametrize('how', ['reserve', 'error', 'read only'])
def test_on_a_full_disk_it_stops_writing_and_goes_on(tmp_path, said, monkeypatch, how):
    cached, plain = Seer(tmp_path), Seer()
    cached(*pictures([1, 2]))
    before = files(tmp_path)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        if how == 'reserve':
            monkeypatch.setattr(reading_store.shutil, 'disk_usage', lambda path: SimpleNamespace(free=GIB + 1000))
        elif how == 'error':  # the system refuses in the middle of a file
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limit[1]))
        else:
            monkeypatch.setattr(
                os, 'replace', lambda *_: (_ for _ in ()).throw(PermissionError(13, 'Permission denied'))
            )
        for seeds in ([3, 4], [1, 2], [5, 6]):
            data = pictures(seeds)
            assert same(cached(*data), plain(*data))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert files(tmp_path) == before and not list(tmp_path.rglob('*.tmp'))
    assert cached.cache.counts()[2] == 2  # [1, 2] again
    expected = {'reserve': '1 GiB of the disk', 'error': 'File too large', 'read only': 'Permission denied'}[how]
    assert len(said('nothing more is written', 'WARN')) == 1 and expected in said('nothing more')[0]


# --------------------------------------------------------------------------------------------------------- whole epochs


class Pictures(torch.utils.data.Dataset):
    """Four images; ``moving`` ones are never the same again."""

    def __init__(self, moving=False):
        self.moving, self.draws = moving, 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.draws += 1
        data = raw_batch(sizes=[(64, 64)], boxes=[1], seed=1000 * self.draws if self.moving else index)
        return dict(inputs=data['inputs'][0], data_samples=data['data_samples'][0])


def collate(items):
    return dict(inputs=[i['inputs'] for i in items], data_samples=[i['data_samples'] for i in items])


def train(tmp_path, moving=False, by_epoch=True, length=3):
    model = distiller(retina(), retina(channels=24), dict(a=cwd()), engine=dict(cache=dict(path=str(tmp_path / 'c'))))
    loop = dict(max_epochs=length) if by_epoch else dict(max_iters=length, val_interval=1000)
    runner = Runner(
        model=model, work_dir=str(tmp_path / 'w'), default_scope='mmdet', experiment_name=tmp_path.name,
        train_dataloader=DataLoader(Pictures(moving), batch_size=2, shuffle=True, collate_fn=collate),
        train_cfg=dict(by_epoch=by_epoch, **loop), optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        custom_hooks=[dict(type='kd_det.TeacherCacheHook')], randomness=dict(seed=0), log_level='INFO',
        default_hooks=dict(checkpoint=None, logger=None),
    )  # fmt: skip
    logger = MMLogger.get_current_instance()
    texts = []
    logger.addFilter(lambda record: texts.append(record.getMessage()) or True)
    runner.train()
    return [text for text in texts if 'teacher.cache' in text], model


def test_each_epoch_ends_with_hits_and_misses(tmp_path):
    texts, model = train(tmp_path)
    assert '(4 images: ' in texts[0]
    epochs = [text for text in texts if 'replayed' in text]
    assert [text.split(': ', 1)[1].split(';')[0] for text in epochs] == [
        '0 of 4 images replayed, 4 computed (4 of them written)',
        '4 of 4 images replayed, 0 computed (0 of them written)',
        '4 of 4 images replayed, 0 computed (0 of them written)',
    ]
    assert not any('useless' in text for text in texts)


def test_counts_are_those_of_all_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(kd_det.hooks.teacher_cache, 'all_reduce', lambda counts: counts.mul_(3))
    texts, _ = train(tmp_path, length=2)
    epochs = [text.split(': ', 1)[1].split(';')[0] for text in texts if 'replayed' in text]
    assert epochs[0] == '0 of 12 images replayed, 12 computed (12 of them written)' and '12 of 12' in epochs[1]


def test_random_transforms_are_told_once_after_an_epoch_that_could_have_hit(tmp_path):
    texts, _ = train(tmp_path, moving=True, length=4)
    told = [index for index, text in enumerate(texts) if 'useless' in text]
    assert len(told) == 1 and sum('replayed' in text for text in texts[: told[0]]) == 2
    assert '0 of 4 images were seen again as they were: random resizing or cropping' in texts[told[0]]


def test_where_iterations_are_counted_an_epoch_is_the_length_of_the_loader(tmp_path):
    texts, _ = train(tmp_path, by_epoch=False, length=5)
    epochs = [text.split(': ', 1)[1].split(' images')[0] for text in texts if 'replayed' in text]
    assert epochs == ['0 of 4', '4 of 4', '2 of 2']


# ------------------------------------------------------------------------------------------------------------ the files


TENSORS = [
    torch.tensor([float('nan'), -0.0, 0.0, float('inf'), 1e-40]),
    torch.randn(1, 3, 4, 5).to(memory_format=torch.channels_last),
    torch.randn(2, 3).t(),
    torch.randn(7).bfloat16(),
    torch.randn(3).half(),
    torch.randn(2, 2).double(),
    torch.arange(5),
    torch.tensor([True, False, True]),
    torch.empty(1, 0, 4),
    torch.tensor(3.5),
]


def opened(folder, limit=GIB, processes=1):
    store = ReadingStore(folder, limit)
    store.count(processes)
    return store


def test_files_give_back_every_bit(tmp_path):
    store = opened(tmp_path)
    assert store.put('a/0123', dict(image=dict(img_id='ä')), TENSORS) and store.has('a/0123')
    notes, found = opened(tmp_path).get('a/0123')
    assert notes == dict(image=dict(img_id='ä'))
    for ours, theirs in zip(found, TENSORS, strict=True):
        assert same(ours, theirs.contiguous())
    assert not store.has('a/0124') and store.get('a/0124') is None and store.damaged == 0
    assert store.total == sum(p.stat().st_size for p in tmp_path.rglob('*') if p.is_file()) == opened(tmp_path).total


def test_a_damaged_file_is_not_there(tmp_path):
    store = opened(tmp_path)
    store.put('a/0123', {}, TENSORS)
    path = store.file('a/0123')
    whole = path.read_bytes()
    for length in [*range(0, 40, 3), *range(40, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert store.get('a/0123') is None, length
    for place in [*range(0, 30), *range(30, len(whole), 53), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        assert store.get('a/0123') is None, place
    path.write_bytes(whole + b'\0')
    assert store.get('a/0123') is None
    path.write_bytes(bytes(len(whole)))  # what some file systems leave after a power cut
    assert store.get('a/0123') is None
    path.write_bytes(whole)
    assert store.get('a/0123') is not None
    other = store.file('a/0199')
    other.parent.mkdir(exist_ok=True)
    os.replace(path, other)  # whole, under another name
    assert store.get('a/0199') is None


def test_a_writer_that_dies_before_the_rename_leaves_no_file(tmp_path, monkeypatch):
    store = opened(tmp_path)

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', die)
    with pytest.raises(KeyboardInterrupt):
        store.put('a/0123', {}, TENSORS)
    assert not store.has('a/0123') and not store.stopped and not [p for p in tmp_path.rglob('*') if p.is_file()]


def _write_for_ever(folder, started):
    store = opened(folder)
    tensors = [torch.full((200_000,), 1.0)]
    for number in range(10**9):
        store.put(f'a/{number % 50:04d}', {}, tensors)
        started.set()


def test_a_kill_at_any_moment_leaves_whole_files_alone(tmp_path):
    fork = multiprocessing.get_context('fork')
    for delay in (0.0, 0.003, 0.011, 0.02):
        started = fork.Event()
        process = fork.Process(target=_write_for_ever, args=(tmp_path, started))
        process.start()
        assert started.wait(60)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        store = opened(tmp_path)
        found = list(tmp_path.rglob('*.kdr'))
        for path in found:
            assert torch.equal(store.get(f'a/{path.stem}')[1][0], torch.full((200_000,), 1.0)), path
        assert found and store.damaged == 0
    partial = [path for path in tmp_path.rglob('*.tmp')]
    for path in partial:
        os.utime(path, (0, 0))
    fresh = tmp_path / 'a' / 'x.kdr.1.ab.tmp'
    fresh.write_bytes(b'of a process that still writes')
    opened(tmp_path)
    assert [path for path in tmp_path.rglob('*.tmp')] == [fresh]


def test_old_files_of_others_are_left_alone(tmp_path):
    names = 'model.tmp', 'a.kdr.tmp', 'x.kdr.12.0fg.tmp', 'notes.json.1.ab.tmp', 'x.kdr.1.ab.tmp.tmp', 'x.kdr'
    own = 'ab.kdr.12.0f3a5b7c.tmp', 'teacher.json.7.00ff00ff.tmp'
    for name in names + own:
        (tmp_path / name).write_text('x')
        os.utime(tmp_path / name, (0, 0))
    store = opened(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(names) and store.total == len(names)


def _write_and_read(folder, seed, failed):
    store = opened(folder, processes=2)
    for number in torch.randperm(60, generator=torch.Generator().manual_seed(seed)).tolist():
        name = f'a/{number:04d}'
        store.put(name, {}, [torch.full((5000,), float(number))])
        found = store.get(name)
        if found is None or not torch.equal(found[1][0], torch.full((5000,), float(number))):
            failed.value += 1


def test_processes_may_share_a_folder(tmp_path):
    fork = multiprocessing.get_context('fork')
    failed = fork.Value('i', 0)
    processes = [fork.Process(target=_write_and_read, args=(tmp_path, seed, failed)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0] and failed.value == 0
    assert len(list(tmp_path.rglob('*.kdr'))) == 60 and not list(tmp_path.rglob('*.tmp'))


def test_teachers_of_two_processes_share_their_readings(tmp_path):
    fork = multiprocessing.get_context('fork')
    both = [Seer(tmp_path), Seer(tmp_path)]
    work = [[[1, 2], [3, 4]], [[3, 4], [1, 2]]]
    processes = [
        fork.Process(target=lambda seer, seeds: [seer(*pictures(s)) for s in seeds], args=args)
        for args in zip(both, work)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    plain, later = Seer(), Seer(tmp_path)
    for seeds in ([1, 4], [3, 2]):
        data = pictures(seeds)
        assert same(later(*data), plain(*data)) and later.runs == 0


def test_two_that_write_by_turns_keep_the_limit(tmp_path):
    """Each counts anew before it has written a share of the room that it saw."""
    one, two = opened(tmp_path, 100_000), opened(tmp_path, 100_000)
    for number in range(200):
        (one if number % 2 else two).put(f'a/{number:04d}', {}, [torch.randn(300)])
    total = sum(p.stat().st_size for p in tmp_path.rglob('*.kdr'))
    assert one.stopped and two.stopped and 90_000 < total <= 100_000
    ranks = [opened(tmp_path / 'ranks', 100_000, processes=4) for _ in range(4)]
    for number in range(200):
        ranks[number % 4].put(f'a/{number:04d}', {}, [torch.randn(300)])
    assert 50_000 < sum(p.stat().st_size for p in (tmp_path / 'ranks').rglob('*.kdr')) <= 100_000
