"""The shell scripts: what they start, by the variables that mmdet's scripts honour."""

import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


@pytest.fixture
def run(tmp_path):
    """Run a script with a python and an srun that print their arguments, one a line."""
    for name in ('python', 'srun'):
        stub = tmp_path / name
        stub.write_text(f'#!/bin/sh\necho {name}\nfor a; do echo "$a"; done\necho "PYTHONPATH=$PYTHONPATH"\n')
        stub.chmod(0o755)

    def run(script, *args, code=0, **env):
        keep = {'PATH': f'{tmp_path}:{os.environ["PATH"]}'}
        done = subprocess.run([TOOLS / script, *args], env={**keep, **env}, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout.splitlines() if code == 0 else done.stderr

    return run


TORCHRUN = [
    'python',
    '-m',
    'torch.distributed.run',
    '--nnodes=1',
    '--node_rank=0',
    '--master_addr=127.0.0.1',
    '--master_port=29500',
    '--nproc_per_node=8',
]


def test_dist_train(run):
    lines = run('dist_train.sh', 'configs/a b.py', '8', '--amp', '--cfg-options', 'a.b=c d')
    assert lines[:-1] == [
        *TORCHRUN,
        f'{TOOLS}/train.py',
        'configs/a b.py',
        '--launcher',
        'pytorch',
        '--amp',
        '--cfg-options',
        'a.b=c d',
    ]
    assert Path(lines[-1].removeprefix('PYTHONPATH=')).resolve() == TOOLS.parent


def test_dist_test(run):
    lines = run('dist_test.sh', 'c.py', 'x.pth', '2', '--out', 'a.pkl', PYTHONPATH='/mine')
    assert lines[7:-1] == [
        '--nproc_per_node=2',
        f'{TOOLS}/test.py',
        'c.py',
        'x.pth',
        '--launcher',
        'pytorch',
        '--out',
        'a.pkl',
    ]
    assert lines[-1].endswith(':/mine')


@pytest.mark.parametrize('script, args', [('dist_train.sh', ['c.py', '4']), ('dist_test.sh', ['c.py', 'x.pth', '4'])])
def test_several_machines(run, script, args):
    lines = run(script, *args, NNODES='2', NODE_RANK='1', PORT='29666', MASTER_ADDR='10.0.0.1')
    assert lines[3:8] == [
        '--nnodes=2',
        '--node_rank=1',
        '--master_addr=10.0.0.1',
        '--master_port=29666',
        '--nproc_per_node=4',
    ]


def test_slurm_train(run):
    lines = run('slurm_train.sh', 'gpu', 'job', 'c.py', 'work dir', '--resume')
    assert lines[:-1] == [
        'srun',
        '--partition=gpu',
        '--job-name=job',
        '--gres=gpu:8',
        '--ntasks=8',
        '--ntasks-per-node=8',
        '--cpus-per-task=5',
        '--kill-on-bad-exit=1',
        'python',
        '-u',
        f'{TOOLS}/train.py',
        'c.py',
        '--work-dir',
        'work dir',
        '--launcher',
        'slurm',
        '--resume',
    ]
    lines = run(
        'slurm_train.sh', 'gpu', 'job', 'c.py', 'w', GPUS='4', CPUS_PER_TASK='2', SRUN_ARGS='--quotatype=auto -x n1'
    )
    assert lines[3:11] == [
        '--gres=gpu:4',
        '--ntasks=4',
        '--ntasks-per-node=4',
        '--cpus-per-task=2',
        '--kill-on-bad-exit=1',
        '--quotatype=auto',
        '-x',
        'n1',
    ]
    assert '--ntasks-per-node=2' in run('slurm_train.sh', 'gpu', 'job', 'c.py', 'w', GPUS='16', GPUS_PER_NODE='2')


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh'])
def test_too_few_arguments_print_the_usage(run, script):
    assert f'tools/{script}' in run(script, 'only-one', code=2)
