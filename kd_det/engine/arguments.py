"""The command-line arguments of the tools: mmdet's own, under mmdet's names."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from mmengine.config import DictAction


def _parser(description: str) -> ArgumentParser:
    parser = ArgumentParser(description=description)
    parser.add_argument(
        'config', metavar='CONFIG', help='a config file, or mmdet::… or mmrazor::… for one that a package carries'
    )
    return parser


def _add_common(parser: ArgumentParser) -> None:
    parser.add_argument(
        '--work-dir',
        metavar='DIR',
        help='folder for logs and checkpoints (default: work_dir of the config, else work_dirs/<config name>)',
    )
    add_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes of a distributed run',
    )
    # torch.distributed.launch passes either spelling, torchrun sets the variable LOCAL_RANK instead
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by old launchers')


def add_options(parser: ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override keys of the '
        'config: a.b=1 a.list=[1,2] a.list.0.key=x a.none=None; no spaces, quote brackets for the shell',
    )


def _parse(parser: ArgumentParser, argv: Sequence[str] | None) -> Namespace:
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def parse_train(argv: Sequence[str] | None = None) -> Namespace:
    """The arguments of ``tools/train.py``."""
    parser = _parser('Train a detector, alone or distilled: any mmdet, kd_det or mmrazor detection config.')
    _add_common(parser)
    parser.add_argument('--amp', action='store_true', help='train with automatic mixed precision (GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the number of images '
        'per step, by auto_scale_lr.base_batch_size of the config',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from CHECKPOINT, or from the latest in the work folder',
    )
    return _parse(parser, argv)


def parse_test(argv: Sequence[str] | None = None) -> Namespace:
    """The arguments of ``tools/test.py``."""
    parser = _parser('Test a detector; of a distillation config, the student alone.')
    parser.add_argument(
        'checkpoint', metavar='CHECKPOINT', help='a checkpoint of kd_det, mmrazor or mmdet, path or URL'
    )
    _add_common(parser)
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', metavar='DIR', help='save images with the predictions below the work folder')
    parser.add_argument(
        '--wait-time', type=float, default=2, metavar='SECONDS', help='how long --show shows each image'
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help='test-time augmentation: tta_model and tta_pipeline of the config, else a horizontal flip',
    )
    return _parse(parser, argv)
