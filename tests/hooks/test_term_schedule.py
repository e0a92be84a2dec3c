"""TermScheduleHook in runs of mmengine."""

import logging

import pytest
import torch
from mmengine.runner import Runner
from tiny_models import cwd, distiller, raw_batch, retina
from torch.utils.data import DataLoader

from kd_det.hooks import TermScheduleHook
from kd_det.losses.temperature import CurriculumTemperature


class Factors(TermScheduleHook):
    """Notes the factors of every step, and the epochs and values of learnt temperatures."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        super().before_train_iter(runner, batch_idx, data_batch)
        model = getattr(runner.model, 'module', runner.model)
        runner.factors.append(tuple(term.factor for term in model.terms))
        learnt = [m for m in model.modules() if isinstance(m, CurriculumTemperature)]
        runner.epochs.append([m.epoch for m in learnt])
        runner.theta.append([m.global_T.item() for m in learnt])


def runner(work_dir, terms, epochs=3, by_epoch=True, resume=False, stop=None, **options):
    """Four batches of two images an epoch; ``stop`` ends the run after that epoch or iteration."""
    model = distiller(retina(), retina(), terms)
    data = [
        dict(inputs=d['inputs'][0], data_samples=d['data_samples'][0])
        for d in (raw_batch(sizes=[(64, 64)], boxes=[1], seed=i) for i in range(4))
    ]
    loop = dict(max_epochs=epochs) if by_epoch else dict(max_iters=epochs, val_interval=1000)
    run = Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=DataLoader(data, batch_size=1, collate_fn=_collate),
        train_cfg=dict(by_epoch=by_epoch, **loop),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-4)),
        custom_hooks=[Factors()],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=by_epoch)),
        randomness=dict(seed=0),
        resume=resume,
        default_scope='mmdet',
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}_{resume}_{epochs}',
        **options,
    )
    run.factors, run.epochs, run.theta = [], [], []
    return run


def _collate(items):
    return dict(inputs=[i['inputs'] for i in items], data_samples=[i['data_samples'] for i in items])


def test_epochs(tmp_path, caplog):
    terms = dict(a=cwd(schedule=dict(begin=1, warmup=1, end=2.5)), b=cwd())
    run = runner(tmp_path / 'w', terms)
    run.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, 'mmengine'):
        run.train()
    expected = [0.0] * 4 + [0, 0.25, 0.5, 0.75] + [1, 1, 0, 0]
    assert [a for a, _ in run.factors] == pytest.approx(expected)
    assert {b for _, b in run.factors} == {1.0}
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith('Term')]
    assert lines == ["Term 'a' starts at iteration 5.", "Term 'a' stops at iteration 10."]


def test_iterations(tmp_path):
    terms = dict(a=cwd(schedule=dict(begin=2, warmup=2, end=6, by_epoch=False)))
    run = runner(tmp_path / 'w', terms, epochs=8, by_epoch=False)
    run.train()
    assert [a for (a,) in run.factors] == [0, 0, 0, 0.5, 1, 1, 0, 0]


def test_a_resumed_run_goes_on_where_it_was(tmp_path):
    terms = dict(a=cwd(schedule=dict(warmup=3)))
    whole = runner(tmp_path / 'whole', terms)
    whole.train()
    first = runner(tmp_path / 'parts', terms, epochs=1)
    first.train()
    second = runner(tmp_path / 'parts', terms, resume=True)
    second.train()
    assert first.factors + second.factors == whole.factors
    assert second.factors[0] == pytest.approx((4 / 12,))


LEARNT = dict(type='kd_det.CurriculumTemperature', decay_loops=2)
KD = dict(
    student='bbox_head[0]', teacher='bbox_head[0]', adapter=dict(type='kd_det.DenseRows', select='all'),
    loss=dict(type='kd_det.KDLoss', use_sigmoid=True, T=LEARNT),
)  # fmt: skip


def test_learnt_temperatures_are_told_the_epoch(tmp_path):
    """Of two terms, one with a temperature per level: from 1, at each epoch's first step."""
    run = runner(tmp_path / 'w', dict(kd=KD, cwd=cwd(loss=dict(type='kd_det.CWDLoss', tau=LEARNT))))
    run.train()
    assert run.epochs == [[1] * 4] * 4 + [[2] * 4] * 4 + [[3] * 4] * 4
    assert run.theta[0] == [1.0] * 4
    assert run.theta[-1][0] != 1.0


def test_a_loop_of_iterations_has_epochs_of_the_loaders_length(tmp_path):
    run = runner(tmp_path / 'w', dict(kd=KD), epochs=6, by_epoch=False)
    run.train()
    assert run.epochs == [[1]] * 4 + [[2]] * 2
    resumed = runner(tmp_path / 'w', dict(kd=KD), epochs=9, by_epoch=False, resume=True)
    resumed.train()
    assert resumed.epochs == [[2]] * 2 + [[3]]


def test_a_resumed_curriculum_goes_on_where_it_was(tmp_path):
    """The epoch comes from the runner, the learnt number from the checkpoint."""
    whole = runner(tmp_path / 'whole', dict(kd=KD))
    whole.train()
    runner(tmp_path / 'parts', dict(kd=KD), epochs=1).train()
    second = runner(tmp_path / 'parts', dict(kd=KD), resume=True)
    second.train()
    assert second.epochs == whole.epochs[4:]
    torch.testing.assert_close(second.theta[0], whole.theta[4])


def test_other_models_are_left_alone():
    class Plain(torch.nn.Linear):
        pass

    model = Plain(1, 1)
    before = dict(vars(model))
    TermScheduleHook().before_train_iter(type('R', (), dict(model=model, train_loop=None, iter=3))(), 0)
    assert vars(model) == before
