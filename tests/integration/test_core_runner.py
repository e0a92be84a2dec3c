"""Whole runs of mmengine: resuming, accumulating, averaging, mixed precision."""

import copy
from contextlib import contextmanager

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from tiny_models import backbone, build, cwd, distiller, raw_batch, retina
from torch.utils.data import DataLoader

from kd_det.registry import MODELS

MGD = dict(student='neck', teacher='neck', loss=dict(type='kd_det.MGDLoss', alpha_mgd=1e-3))


def make(work_dir, iters, model=None, batch_size=2, resume=False, **options):
    if model is None:
        model = distiller(retina(backbone=backbone(norm_eval=False)), retina(channels=24), dict(a=cwd(), b=MGD))
    raw = [raw_batch(sizes=[(64, 64)], boxes=[1 + i % 2], seed=i) for i in range(8)]
    data = [dict(inputs=d['inputs'][0], data_samples=d['data_samples'][0]) for d in raw]
    settings = dict(
        train_cfg=dict(by_epoch=False, max_iters=iters, val_interval=1000),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-2, momentum=0.9)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False)),
        custom_hooks=[dict(type='kd_det.TermScheduleHook')],
        randomness=dict(seed=0, deterministic=True),
    )
    return Runner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=DataLoader(data, batch_size=batch_size, collate_fn=_collate),
        resume=resume,
        default_scope='mmdet',
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}_{iters}',
        **{**settings, **options},
    )


def _collate(items):
    items = copy.deepcopy(items)
    return dict(inputs=[i['inputs'] for i in items], data_samples=[i['data_samples'] for i in items])


def weights(runner):
    return {k: v.clone() for k, v in runner.model.state_dict().items()}


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    """CWD alone, since MGD draws random masks and mmengine does not save random states."""
    torch.save(dict(state_dict=build(retina(channels=24), 3).state_dict()), tmp_path / 't.pth')

    def model():
        return distiller(
            retina(backbone=backbone(norm_eval=False)), retina(channels=24), dict(a=cwd()),
            checkpoint=str(tmp_path / 't.pth'),
        )  # fmt: skip

    whole = make(tmp_path / 'whole', 4, model())
    whole.train()
    make(tmp_path / 'parts', 2, model()).train()
    resumed = make(tmp_path / 'parts', 4, model(), resume=True)
    resumed.train()
    assert resumed.iter == 4
    ours, theirs = weights(resumed), weights(whole)
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    saved = torch.load(tmp_path / 'parts' / 'iter_4.pth', weights_only=False)
    assert {k.split('.')[0] for k in saved['state_dict']} == {'student', 'distill'}
    assert any(k.startswith('distill.a.adapter.convs') for k in saved['state_dict'])
    n_state = len(saved['optimizer']['state'])
    assert n_state == len(list(resumed.model.parameters()))  # the optimiser knows the adapters and no teacher


def test_training_moves_student_and_adapters_and_not_the_teacher(tmp_path):
    runner = make(tmp_path / 'w', 2)
    teacher = runner.model.teacher
    teacher.fold = False  # the first step would change its weights, not its readings
    before, frozen = weights(runner), copy.deepcopy(teacher.model.state_dict())
    runner.train()
    after, state = weights(runner), runner.optim_wrapper.optimizer.state
    for name, parameter in runner.model.named_parameters():
        assert state[parameter]['momentum_buffer'].any(), name
    for part in ('student.backbone.conv1', 'student.bbox_head.retina_cls', 'distill.b.losses.2.generation.2'):
        assert not torch.equal(before[f'{part}.weight'], after[f'{part}.weight']), part
    for name, value in teacher.model.state_dict().items():
        assert torch.equal(value, frozen[name]), name


def test_ema_averages_the_student_and_no_teacher(tmp_path):
    runner = make(tmp_path / 'w', 2, custom_hooks=[dict(type='EMAHook', momentum=0.5)])
    start = weights(runner)
    runner.train()
    saved = torch.load(tmp_path / 'w' / 'iter_2.pth', weights_only=False)
    averaged, plain = saved['state_dict'], saved['ema_state_dict']  # mmengine swaps the two when it saves
    name = 'student.neck.fpn_convs.0.conv.weight'
    one = torch.load(tmp_path / 'w' / 'iter_1.pth', weights_only=False)['ema_state_dict']
    by_hand = start[name]
    assert torch.equal(plain[f'module.{name}'], weights(runner)[name])
    for step in (one[f'module.{name}'], plain[f'module.{name}']):
        by_hand = step if step is one[f'module.{name}'] else by_hand * 0.5 + step * 0.5  # the first step copies
    torch.testing.assert_close(averaged[name], by_hand)
    assert not any('teacher' in k for k in [*averaged, *plain])


def test_a_mean_teacher_is_kept_apart_and_comes_back(tmp_path):
    """Interrupted and resumed, student and average end where an uninterrupted run leaves them."""

    def model():
        torch.manual_seed(0)
        wrapper = MODELS.build(
            dict(
                type='kd_det.DistillDetector', student=retina(backbone=backbone(norm_eval=False)),
                teacher=dict(ema=True, momentum=0.1), distill=dict(a=cwd()),
            )
        )  # fmt: skip
        wrapper.init_weights()
        return wrapper

    hooks = dict(custom_hooks=[dict(type='kd_det.EMATeacherHook')])
    whole = make(tmp_path / 'whole', 4, model(), **hooks)
    whole.train()
    make(tmp_path / 'parts', 2, model(), **hooks).train()
    resumed = make(tmp_path / 'parts', 4, model(), resume=True, **hooks)
    resumed.train()
    ours, theirs = (run.model.teacher.averaged.state_dict() for run in (resumed, whole))
    assert int(theirs['steps']) == 5  # the copy at the start, then one move a step
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
    for name, value in weights(whole).items():
        assert torch.equal(weights(resumed)[name], value), name
    key = 'backbone.conv1.weight'
    assert not torch.equal(theirs[f'module.{key}'], weights(whole)[f'student.{key}'])
    saved = torch.load(tmp_path / 'parts' / 'iter_4.pth', weights_only=False)
    assert {k.split('.')[0] for k in saved['state_dict']} == {'student'}
    assert set(saved['ema_teachers']) == {'model.teacher'}


def test_accumulated_gradients_are_those_of_one_big_step(tmp_path):
    """Images of a batch weigh alike in CWD, so that two batches of one are a batch of two."""

    def model():
        off = dict(loss_cls=0.0, loss_bbox=0.0)
        return distiller(retina(), retina(channels=24), dict(a=cwd()), task_weights=off)

    big = make(tmp_path / 'big', 1, model())
    big.train()
    optim = dict(optimizer=dict(type='SGD', lr=1e-2, momentum=0.9), accumulative_counts=2)
    small = make(tmp_path / 'small', 2, model(), batch_size=1, optim_wrapper=optim)
    start = weights(small)
    small.train()
    ours, theirs = weights(small), weights(big)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-7, msg=name)
    assert not torch.equal(ours['student.neck.fpn_convs.0.conv.weight'], start['student.neck.fpn_convs.0.conv.weight'])


class AutocastOnCPU(OptimWrapper):
    """What AmpOptimWrapper does, which mmengine allows on accelerators alone."""

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield


def _amp_near_plain(tmp_path, amp, **options):
    start = {k: v.cpu() for k, v in weights(amp).items()}
    plain = make(tmp_path / 'plain', 2, **options)
    amp.train()
    plain.train()
    ours, theirs = ({k: v.cpu() for k, v in weights(runner).items()} for runner in (amp, plain))
    names = [name for name, _ in plain.model.named_parameters()]
    for name in names:
        assert ours[name].dtype == torch.float32 and torch.isfinite(ours[name]).all()
    steps = [torch.cat([(side[name] - start[name]).flatten() for name in names]) for side in (ours, theirs)]
    assert torch.cosine_similarity(*steps, dim=0) > 0.99


@pytest.mark.parametrize('accumulate', [1, 2])
def test_autocast_trains_near_float32(tmp_path, accumulate):
    optimizer = dict(type='SGD', lr=1e-2, momentum=0.9)
    OPTIM_WRAPPERS.register_module(name='AutocastOnCPU', module=AutocastOnCPU, force=True)
    optim = dict(type='AutocastOnCPU', optimizer=optimizer, accumulative_counts=accumulate)
    amp = make(tmp_path / 'amp', 2, optim_wrapper=optim)
    _amp_near_plain(tmp_path, amp, optim_wrapper=dict(optimizer=optimizer, accumulative_counts=accumulate))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='mmengine has AmpOptimWrapper for accelerators alone')
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_amp_trains_near_float32(tmp_path, dtype):
    optimizer = dict(type='SGD', lr=1e-2, momentum=0.9)
    scale = dict(loss_scale=128.0) if dtype == 'float16' else {}
    optim = dict(type='AmpOptimWrapper', dtype=dtype, optimizer=optimizer, **scale)
    amp = make(tmp_path / 'amp', 2, optim_wrapper=optim)
    _amp_near_plain(tmp_path, amp, optim_wrapper=dict(optimizer=optimizer))
