"""StudentCheckpointHook in real runs of a toy that is built like a DistillDetector."""

import os

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from kd_det.hooks.student_checkpoint import StudentCheckpointHook


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.student = nn.Linear(3, 1)
        self.distill = nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor'):
        out = self.distill(self.student(inputs))
        return dict(loss=out.square().mean()) if mode == 'loss' else [out]


class Given(BaseMetric):
    """Gives one value after the other, whatever the model."""

    def __init__(self, values):
        super().__init__()
        self.values = iter(values)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(mAP=next(self.values))


class Remember(StudentCheckpointHook):
    """Notes the student's weights at each validation."""

    def after_val_epoch(self, runner, metrics=None):
        runner.seen.append({k: v.clone() for k, v in runner.model.student.state_dict().items()})
        super().after_val_epoch(runner, metrics)


def toy_runner(work_dir, values, ema=False, resume=False, **options):
    torch.manual_seed(0)
    data = [dict(inputs=torch.randn(3)) for _ in range(8)]
    runner = Runner(
        model=Toy(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(data, batch_size=4),
        val_dataloader=DataLoader(data, batch_size=4),
        val_evaluator=[Given(values)],
        val_cfg=dict(),
        train_cfg=dict(by_epoch=True, max_epochs=4, val_interval=1),
        randomness=dict(seed=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        resume=resume,
        default_scope='mmengine',
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='mAP', rule='greater')),
        custom_hooks=[Remember(**options)] + ([dict(type='EMAHook', momentum=0.5)] if ema else []),
        experiment_name=f'{work_dir.parent.name}_{work_dir.name}_{resume}',
    )
    runner.seen = []
    return runner


def students(work_dir):
    return {
        name: torch.load(work_dir / name, weights_only=True)['state_dict']
        for name in sorted(os.listdir(work_dir))
        if name.startswith('student_')
    }


def test_last_and_best_are_written_and_the_former_best_goes(tmp_path):
    runner = toy_runner(tmp_path / 'w', [0.1, 0.3, 0.2, 0.25])
    runner.train()
    written = students(tmp_path / 'w')
    assert list(written) == ['student_best_mAP_epoch_2.pth', 'student_last.pth']
    assert list(written['student_last.pth']) == ['weight', 'bias']
    torch.testing.assert_close(dict(written['student_best_mAP_epoch_2.pth']), runner.seen[1], rtol=0, atol=0)
    torch.testing.assert_close(
        dict(written['student_last.pth']), dict(runner.model.student.state_dict()), rtol=0, atol=0
    )
    assert not torch.equal(runner.seen[1]['weight'], runner.model.student.weight)
    assert (tmp_path / 'w' / 'epoch_4.pth').exists()  # what the run resumes from is untouched


def test_after_resuming_the_old_best_still_goes(tmp_path):
    class Stop(Exception):
        pass

    def values():
        yield from (0.1, 0.3)
        raise Stop

    with pytest.raises(Stop):
        toy_runner(tmp_path / 'w', values()).train()
    assert list(students(tmp_path / 'w')) == ['student_best_mAP_epoch_2.pth']
    toy_runner(tmp_path / 'w', [0.9, 0.2], resume=True).train()
    assert list(students(tmp_path / 'w')) == ['student_best_mAP_epoch_4.pth', 'student_last.pth']


def test_with_ema_the_averaged_weights_are_written(tmp_path):
    runner = toy_runner(tmp_path / 'w', [0.1, 0.2, 0.3, 0.4], ema=True)
    runner.train()
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model.module.student
    written = students(tmp_path / 'w')['student_last.pth']
    torch.testing.assert_close(dict(written), dict(ema.state_dict()), rtol=0, atol=0)
    assert not torch.equal(written['weight'], runner.model.student.weight)
    best = torch.load(tmp_path / 'w' / 'best_mAP_epoch_4.pth')['state_dict']  # mmengine's own, of the same moment
    torch.testing.assert_close(
        students(tmp_path / 'w')['student_best_mAP_epoch_4.pth']['weight'], best['student.weight']
    )


def test_options(tmp_path):
    toy_runner(tmp_path / 'w', [0.1] * 4, best=False, out_dir=str(tmp_path / 'elsewhere')).train()
    assert not students(tmp_path / 'w') and list(students(tmp_path / 'elsewhere')) == ['student_last.pth']
    toy_runner(tmp_path / 'v', [0.1] * 4, last=False).train()
    assert list(students(tmp_path / 'v')) == ['student_best_mAP_epoch_1.pth']
