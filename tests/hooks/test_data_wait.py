"""DataWaitHook in real runs that wait for data and that do not, and on made-up times."""

from __future__ import annotations

import logging
import os
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader, Dataset

from kd_det.datasets import LoadImageOnce
from kd_det.errors import ConfigError
from kd_det.hooks import DataWaitHook, PinMemoryHook, TeacherCacheHook, data_wait, pin_memory
from kd_det.hooks.data_wait import remedies
from kd_det.registry import HOOKS


class Slow(Dataset):
    """Numbers that take ``pause`` seconds to come."""

    def __init__(self, pause, number=8):
        self.pause, self.number = pause, number

    def __len__(self):
        return self.number

    def __getitem__(self, index):
        time.sleep(self.pause)
        return dict(inputs=torch.full((3,), float(index)))


class Toy(BaseModel):
    """A step of about 40 ms."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, inputs, mode='tensor'):
        if mode == 'predict':
            return [{}]
        time.sleep(0.04)
        return dict(loss=self.layer(inputs).square().mean())


class SlowMetric(BaseMetric):
    """Takes much longer to compute than a step."""

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        time.sleep(0.3)
        return {}


class Work(Hook):
    """What follows the timer in a step, as saving a checkpoint does."""

    priority = 'VERY_LOW'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.data_times.append(runner.message_hub.get_scalar('train/data_time').current())
        time.sleep(0.04)


def toy_run(folder, dataset, steps=8, workers=0, hooks=(), by_epoch=True, share=0.25, val_interval=None):
    """With a share that a busy machine does not reach by itself."""
    loop = dict(by_epoch=True, max_epochs=1) if by_epoch else dict(by_epoch=False, max_iters=steps)
    val = {}
    if val_interval:
        loop['val_interval'] = val_interval
        val = dict(val_cfg={}, val_evaluator=Evaluator(SlowMetric()), val_dataloader=DataLoader(Slow(0, 2)))
    runner = Runner(
        model=Toy(),
        work_dir=str(folder),
        train_dataloader=DataLoader(dataset, batch_size=1, num_workers=workers),
        train_cfg=loop,
        **val,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=None, logger=None),
        custom_hooks=[DataWaitHook(interval=4, warmup=2, share=share), *hooks],
        default_scope='mmengine',
        experiment_name=f'{folder.parent.name}_{folder.name}',
    )
    runner.data_times = []
    return runner


def train(runner, caplog):
    """Train; what DataWaitHook and the image cache said."""
    caplog.clear()
    runner.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, runner.logger.name):
        runner.train()
    runner.logger.removeHandler(caplog.handler)
    return [r for r in caplog.records if r.getMessage().startswith(('Training waits', 'LoadImageOnce'))]


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_run_that_waits_says_so_once(tmp_path, caplog, by_epoch):
    (record,) = train(toy_run(tmp_path / 'w', Slow(0.06, 14), 14, by_epoch=by_epoch), caplog)
    assert record.levelno == logging.WARNING
    text = record.getMessage()
    wait, step = float(text.split(': ')[1].split()[0]), float(text.split(' of ')[1].split()[0])
    assert 0.06 <= wait < step and step >= 0.1 and wait / step == pytest.approx(0.6, abs=0.2)
    percent = float(text.split('(')[1].split('%')[0])
    assert (
        percent / 100 == pytest.approx(wait / step, abs=0.03) and 'a step' in text and 'over the last 4 steps' in text
    )
    assert 'Workers: 0, ' in text and 'num_workers=' in text and '\n' not in text


def test_a_run_that_does_not_wait_is_silent(tmp_path, caplog):
    assert train(toy_run(tmp_path / 'w', Slow(0.0, 14)), caplog) == []


def test_workers_that_keep_up_are_silent(tmp_path, caplog):
    """They load while the step runs; without them, two fifths of the time would be waiting."""
    assert len(train(toy_run(tmp_path / 'v', Slow(0.03, 14)), caplog)) == 1
    assert train(toy_run(tmp_path / 'w', Slow(0.03, 14), workers=1), caplog) == []


def test_hooks_behind_the_timer_are_no_waiting(tmp_path, caplog):
    """Their time is in the next data_time of mmengine, half of a step here."""
    runner = toy_run(tmp_path / 'w', Slow(0.0, 14), hooks=[Work()])
    assert train(runner, caplog) == []
    assert sum(runner.data_times[1:]) / 13 >= 0.04


def test_the_metrics_of_a_validation_are_no_waiting(tmp_path, caplog):
    """Where iterations are counted they are computed within a step's data_time."""
    runner = toy_run(tmp_path / 'w', Slow(0.0, 14), 14, hooks=[Work()], by_epoch=False, val_interval=3)
    assert train(runner, caplog) == []
    assert max(runner.data_times) >= 0.3


def test_without_mmengines_timer_nothing_is_said(tmp_path, caplog):
    runner = toy_run(tmp_path / 'w', Slow(0.03, 8))
    runner._hooks = [hook for hook in runner.hooks if type(hook).__name__ != 'IterTimerHook']
    assert train(runner, caplog) == []


# --- made-up times ----------------------------------------------------------------------------------------------------


class Made:
    """A runner whose timer says what it is told; ``said`` holds the warnings."""

    def __init__(self, hook, loader=None, length=5):
        self.loader = loader or DataLoader(Slow(0, length), num_workers=1)
        self.hook, self.said, self.hooks, self.epoch_length = hook, [], [], len(self.loader)
        self.message_hub = MessageHub(f'made-{id(self)}')
        self.logger = SimpleNamespace(warning=self.said.append)
        self.train_dataloader = self.loader
        self.steps = 0
        hook.before_train(self)

    def run(self, *steps):
        for data_time, whole in steps:
            index = self.steps % self.epoch_length
            if not index:
                self.hook.before_train_epoch(self)
            self.message_hub.update_scalar('train/data_time', data_time)
            self.message_hub.update_scalar('train/time', whole)
            self.hook.after_train_iter(self, index)
            self.steps += 1
        return len(self.said)


def test_the_numbers_are_those_of_the_interval():
    made = Made(DataWaitHook(interval=4, warmup=0))
    made.run((0.2, 0.5), (0.0, 0.3), (0.0, 0.3), (0.1, 0.4))
    assert made.said[0].startswith(
        'Training waits for its data: 0.075 of 0.375 s a step (20%) over the last 4 steps, most of it as epochs begin. '
        'Workers: 1, cores for them: '
    )


def test_the_share_is_a_limit():
    made = Made(DataWaitHook(interval=2, warmup=0, share=0.25))
    assert made.run((0.25, 1.0), (0.25, 1.0)) == 0  # not more than it
    assert made.run((0.25, 1.0), (0.26, 1.0)) == 1
    assert '(26%)' in made.said[0] or '(25%)' in made.said[0]


def test_it_speaks_again_only_if_things_get_worse():
    made = Made(DataWaitHook(interval=2, warmup=0))
    assert made.run(*[(0.15, 1.0)] * 2) == 1
    assert made.run(*[(0.15, 1.0), (0.24, 1.0)] * 9) == 1  # a little more or less
    assert made.run(*[(0.0, 1.0)] * 8, *[(0.2, 1.0)] * 4) == 1  # better, and back
    assert made.run(*[(0.3, 1.0)] * 2) == 2
    assert made.run(*[(0.3, 1.0)] * 6) == 2
    assert made.run(*[(0.95, 1.0)] * 6) == 3


def test_the_first_steps_do_not_count():
    made = Made(DataWaitHook(interval=2, warmup=3))
    assert made.run((9, 10), (9, 10), (9, 10), (0.05, 1.0), (0.05, 1.0), (0.5, 1.0)) == 0
    assert made.run((0.05, 1.0)) == 1
    made.hook.before_train(made)  # resumed
    assert made.run((9, 10), (9, 10), (9, 10), (0.05, 1.0), (0.05, 1.0)) == 1


def test_the_first_epoch_fills_an_image_cache(tmp_path):
    made = Made(DataWaitHook(interval=2, warmup=1), DataLoader(pictures(tmp_path, LoadImageOnce()), num_workers=0))
    assert made.epoch_length == 4
    assert made.run(*[(0.9, 1.0)] * 4) == 0
    assert made.run(*[(0.9, 1.0)] * 2) == 1
    assert 'LoadImageOnce' not in made.said[0]


def test_of_several_processes_the_worst_counts(monkeypatch):
    made = Made(DataWaitHook(interval=2, warmup=0))
    others = torch.tensor([[0.2, 2.0, 0.0], [1.0, 2.0, 0.1]], dtype=torch.float64)
    asked = []
    monkeypatch.setattr(data_wait, 'all_gather', lambda mine: asked.append(mine) or [mine, *others])
    assert made.run((0.0, 1.0), (0.0, 1.0)) == 1  # this one does not wait at all
    assert asked[0].tolist() == [0, 2, 0]
    assert made.said[0].startswith('Training waits for its data in process 2 of 3: 0.500 of 1.000 s a step (50%)')
    assert 'as epochs begin' not in made.said[0]


@pytest.mark.parametrize(
    'key, values',
    [('interval', [0, 1.5, True]), ('warmup', [-1, '3']), ('share', [0, 1, 1.2, '10%'])],
)
def test_arguments_out_of_range(key, values):
    for value in values:
        with pytest.raises(ConfigError, match=rf'DataWaitHook\.{key}: found .*, expected'):
            DataWaitHook(**{key: value})


# --- what helps -------------------------------------------------------------------------------------------------------


def pictures(folder, step):
    """A data set of four pictures of 16 x 32 px."""
    for index in range(4):
        cv2.imwrite(str(folder / f'{index}.png'), np.full((16, 32, 3), index, np.uint8))

    class Pictures(BaseDataset):
        def load_data_list(self):
            return [dict(img_path=str(folder / f'{index}.png')) for index in range(4)]

    return Pictures(pipeline=[step])


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(8)), raising=False)
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')


def test_what_helps_is_what_can_be_changed(four_cores, tmp_path):
    def ways(at_start=False, data=None, **options):
        text = remedies(DataLoader(data or Slow(0), **options), at_start)
        start, end = text.rstrip('.').split('. What may help: ')
        assert start == f'Workers: {options.get("num_workers", 0)}, cores for them: 4'
        return end.split('; ')

    more = 'train_dataloader.num_workers={} or so'.format
    persistent = 'train_dataloader.persistent_workers=True'
    assert ways() == [more(2), 'faster storage']
    assert ways(num_workers=1, persistent_workers=True) == [more(2), 'faster storage']
    assert ways(num_workers=3) == [more(4), persistent, 'faster storage']
    assert ways(num_workers=3, at_start=True) == [persistent, more(4), 'faster storage']
    assert ways(num_workers=4, persistent_workers=True) == ['cheaper transforms', 'faster storage']
    assert ways(data=pictures(tmp_path, LoadImageOnce())) == [more(2), 'faster storage']
    plain = pictures(tmp_path, dict(type='mmcv.LoadImageFromFile'))
    cache = 'kd_det.LoadImageOnce for LoadImageFromFile if memory allows (about 6.0 KiB for 4 images)'
    assert ways(data=plain) == [more(2), cache, 'faster storage']


def test_a_cache_says_its_size_as_training_starts(tmp_path, caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger.name):
        data = pictures(tmp_path, LoadImageOnce(max_images=3))
        Made(DataWaitHook(), DataLoader(data))
        data[0]
    logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records] == [
        'LoadImageOnce: 4 images, about 6.0 KiB decoded; keeps up to 3 images and 4.0 GiB; the others are read each '
        'time.'
    ]


# --- configs ----------------------------------------------------------------------------------------------------------


def test_distillation_has_the_hooks_by_default(request):
    cfg = Config.fromfile(request.config.rootpath / 'configs' / '_base_' / 'distill_runtime.py')
    kinds = {type(HOOKS.build(hook)) for hook in cfg.custom_hooks}
    assert {DataWaitHook, PinMemoryHook, TeacherCacheHook} <= kinds


@pytest.mark.parametrize('name', ['cwd_rtmdet_m_s', 'fgd_yolox_l_m', 'ssdkd_ssd300_vgg16_mobilenetv2'])
def test_configs_with_hooks_of_their_own_have_them_too(request, name):
    configs = request.config.rootpath / 'configs'
    ours = {hook.type for hook in Config.fromfile(configs / '_base_' / 'distill_runtime.py').custom_hooks}
    assert ours <= {hook.type for hook in Config.fromfile(configs / f'{name}.py').custom_hooks}


@pytest.mark.parametrize(
    'cuda, given, expected',
    [(True, {}, True), (False, {}, False), (True, dict(train_dataloader=dict(pin_memory=False)), False),
     (True, dict(train_dataloader=dict(batch_size=1)), True)],
)  # fmt: skip
def test_batches_are_pinned_where_there_is_a_gpu(monkeypatch, cuda, given, expected):
    monkeypatch.setattr(pin_memory.torch.cuda, 'is_available', lambda: cuda)
    runner = SimpleNamespace(cfg=Config(given), train_dataloader=DataLoader(Slow(0)))
    PinMemoryHook().before_train(runner)
    assert runner.train_dataloader.pin_memory is expected
