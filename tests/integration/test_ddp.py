"""Two processes on a CPU over gloo, started by ``tools/dist_train.sh`` and ``tools/dist_test.sh``."""

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_options, write_tiny_coco

ROOT = Path(__file__).parents[2]

PROBE = '''
"""Gathers, on each process after training, what the others have, and writes it down."""
import json
import os

import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@HOOKS.register_module(force=True)
class ProbeHook(Hook):
    def before_train(self, runner):
        self.start = flat(runner.model)
        self.files = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.files += [os.path.basename(sample.img_path) for sample in data_batch['data_samples']]

    def after_train(self, runner):
        mine = flat(runner.model)
        theirs = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(theirs, mine)
        files = [None] * dist.get_world_size()
        dist.all_gather_object(files, self.files)
        if dist.get_rank() == 0:
            losses = {k: float(v.current()) for k, v in runner.message_hub.log_scalars.items() if 'loss' in k}
            ddp = runner.model
            json.dump(dict(backend=dist.get_backend(), world=len(theirs), files=files, losses=losses,
                           difference=max(float((t - mine).abs().max()) for t in theirs),
                           moved=float((mine - self.start).abs().max()),
                           find_unused_parameters=ddp.find_unused_parameters, model=type(ddp.module).__name__),
                      open(os.path.join(runner.work_dir, 'probe.json'), 'w'))
'''

DISTILLED = """
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
custom_imports = dict(imports=['kd_det', 'probe'])
custom_hooks = [dict(type='ProbeHook')]
student = _base_.model
student.backbone.init_cfg = None
student.neck.out_channels = 16
student.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
teacher = dict(config=dict(model=dict(type='RetinaNet', data_preprocessor=student.data_preprocessor,
                                      backbone=student.backbone, neck=dict(**student.neck), bbox_head=student.bbox_head,
                                      test_cfg=student.test_cfg)), checkpoint={checkpoint!r})
teacher['config']['model']['neck']['out_channels'] = 24
teacher['config']['model']['bbox_head'] = dict(**student.bbox_head)
teacher['config']['model']['bbox_head']['in_channels'] = 24
model = dict(_delete_=True, type='kd_det.DistillDetector', student=student, teacher=teacher,
             distill=dict(fgd=dict(student='neck', teacher='neck', loss=dict(
                 type='kd_det.FGDLoss', temp=0.5, alpha_fgd=1e-3, beta_fgd=5e-4, gamma_fgd=5e-4, lambda_fgd=5e-6))))
"""


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return str(s.getsockname()[1])


def run(script, *args, folder):
    env = {
        **os.environ,
        'PYTHON': sys.executable,
        'PORT': free_port(),
        'OMP_NUM_THREADS': '1',
        'PYTHONWARNINGS': 'ignore',
        'CUDA_VISIBLE_DEVICES': '',
        'PYTHONPATH': os.pathsep.join([str(folder), os.environ.get('PYTHONPATH', '')]),
    }
    done = subprocess.run(
        [ROOT / 'tools' / script, *map(str, args)], env=env, cwd=folder, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    register_all_modules(init_default_scope=False)
    root = tmp_path_factory.mktemp('ddp')
    write_tiny_coco(root / 'coco', n_train=4, n_val=2)
    (root / 'probe.py').write_text(PROBE)
    (root / 'distilled.py').write_text(DISTILLED.format(checkpoint=str(root / 'teacher.pth')))
    teacher = MODELS.build(
        dict(
            _scope_='mmdet',
            **Config.fromfile(root / 'distilled.py', import_custom_modules=False).model.teacher.config.model,
        )
    )
    torch.save(dict(state_dict=teacher.state_dict()), root / 'teacher.pth')
    return root


@pytest.mark.slow
def test_two_processes_train_and_test_as_one(folder):
    data = ['--cfg-options', *tiny_options(folder / 'coco', scale=64), 'train_cfg.val_begin=9']
    run('dist_train.sh', folder / 'distilled.py', 2, '--work-dir', folder / 'w', *data, folder=folder)
    probe = json.loads((folder / 'w' / 'probe.json').read_text())
    assert (probe['backend'], probe['world'], probe['model']) == ('gloo', 2, 'DistillDetector')
    assert not probe['find_unused_parameters']
    assert sorted(probe['files'][0] + probe['files'][1]) == ['1.png', '2.png', '3.png', '4.png']  # each image once
    assert probe['difference'] == 0.0 and probe['moved'] > 0.0
    assert {'train/loss_cls', 'train/loss_bbox', 'train/loss_fgd'} <= set(probe['losses'])
    assert all(math.isfinite(value) for value in probe['losses'].values())
    keys = torch.load(folder / 'w' / 'epoch_1.pth')['state_dict'].keys()
    assert {key.split('.')[0] for key in keys} == {'student', 'distill'}

    run(
        'dist_test.sh',
        folder / 'distilled.py',
        folder / 'w' / 'epoch_1.pth',
        2,
        '--work-dir',
        folder / 't',
        '--out',
        folder / 'out.pkl',
        *data[:-1],
        'custom_hooks=[]',
        'model.student.test_cfg.score_thr=0.001',
        folder=folder,
    )
    import pickle

    found = pickle.loads((folder / 'out.pkl').read_bytes())
    assert sorted(os.path.basename(item['img_path']) for item in found) == ['1.png', '2.png']
