"""TermScheduleHook in runs of mmengine."""

import logging

import pytest
import torch
from mmengine.runner import Runner
from tiny_models import cwd, distiller, raw_batch, retina
from torch.utils.data import DataLoader

from kd_det.hooks import TermScheduleHook


class Factors(TermScheduleHook):
    """Notes the factors of every step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        super().before_train_iter(runner, batch_idx, data_batch)
        model = getattr(runner.model, 'module', runner.model)
        runner.factors.append(tuple(term.factor for term in model.terms))


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
    run.factors = []
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


def test_other_models_are_left_alone():
    class Plain(torch.nn.Linear):
        pass

    model = Plain(1, 1)
    before = dict(vars(model))
    TermScheduleHook().before_train_iter(type('R', (), dict(model=model, train_loop=None, iter=3))(), 0)
    assert vars(model) == before
