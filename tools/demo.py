"""Train a teacher, a plain student and distilled students on a small synthetic set, and compare them.

Usage: python tools/demo.py [--method fgd mgd cwd pkd] [--seeds 0 1 2] [--write-readme]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--method', nargs='+', default=['fgd'], help='methods to distil with (default: fgd)')
    parser.add_argument(
        '--seeds', nargs='+', type=int, default=[0], help='seeds of weights and data order (default: 0)'
    )
    parser.add_argument('--epochs', type=int, help='length of each training (default: as in the configs)')
    parser.add_argument('--data-seed', type=int, default=0, help='seed of the synthetic set (default: 0)')
    parser.add_argument('--train-images', type=int, help='number of training images')
    parser.add_argument('--val-images', type=int, help='number of validation images')
    parser.add_argument('--data-dir', type=Path, default=Path('data/synthetic'), help='folder of the synthetic set')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'), help='folder of everything else')
    parser.add_argument('--configs', type=Path, default=ROOT / 'configs' / 'demo', help="folder of the demo's configs")
    parser.add_argument('--reuse-teacher', action='store_true', help='one teacher, of the first seed, for all seeds')
    parser.add_argument('--fresh', action='store_true', help='train all again, also what was finished before')
    parser.add_argument('--device', choices=['auto', 'cpu'], default='auto', help='auto: a GPU if there is one')
    parser.add_argument('--data-only', action='store_true', help='write the synthetic set and stop')
    parser.add_argument('--write-readme', action='store_true', help='put the table into README.md, between its marks')
    return parser.parse_args()


def gpu_without_ops() -> bool:
    """Whether torch sees a GPU that mmcv was built without operations for."""
    import torch

    if not torch.cuda.is_available():
        return False
    from mmcv.ops import nms

    try:
        nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]], device='cuda'), torch.ones(1, device='cuda'), 0.5)
    except RuntimeError:
        return True
    return False


def main(args: argparse.Namespace) -> None:
    if args.device == 'auto' and gpu_without_ops():
        print('This mmcv has no CUDA operations: the demo runs on the CPU.', flush=True)
        os.execv(sys.executable, [sys.executable, *sys.argv, '--device', 'cpu'])
    from kd_det.datasets.synthetic import SyntheticSpec, write_synthetic
    from kd_det.demo import DemoSettings, run_demo

    sizes = dict(train=args.train_images, val=args.val_images)
    data = SyntheticSpec(seed=args.data_seed, **{k: v for k, v in sizes.items() if v is not None})
    if args.data_only:
        write_synthetic(args.data_dir, data)
        print(f'The synthetic set is in {args.data_dir}')
        return
    settings = DemoSettings(
        configs=args.configs,
        methods=tuple(args.method),
        seeds=tuple(args.seeds),
        epochs=args.epochs,
        data=data,
        data_dir=args.data_dir,
        work_dir=args.work_dir,
        reuse_teacher=args.reuse_teacher,
        fresh=args.fresh,
        readme=ROOT / 'README.md' if args.write_readme else None,
        command=' '.join(['python', *sys.argv]),
    )
    run_demo(settings)


if __name__ == '__main__':
    arguments = parse_args()
    # waiting threads sleep: spinning ones make a step ten times as slow as soon as anything else runs on the machine
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    if arguments.device == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # both before torch is imported
    from kd_det.engine import guarded

    try:
        sys.exit(guarded(main, arguments))
    except KeyboardInterrupt:
        print('\nStopped. Finished parts are kept; the same command goes on from them.', file=sys.stderr)
        sys.exit(130)
