"""Time and memory of a distillation step against its floor: a plain student step and one pass of the teacher.

In one process, interleaved, with warm-up: (a) the plain student's step, (b) the teacher's ``extract_feat`` under
``no_grad``, (c) the distillation step. Prints medians and the ratio (c) / ((a) + (b)), per round, with its spread. Peak
memory is measured in a process of its own for each: the resident peak above the model at rest on a CPU, the allocator's
peak on a GPU.

    python tools/benchmark.py configs/fgd_retina_r101_r50.py --size 320 320 --batch 2
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from mmdet.utils import register_all_modules
from mmengine.config import DictAction
from torch import nn

import kd_det  # noqa: F401, registers everything
from kd_det.bench.machine import resident
from kd_det.detectors.plan import probe_batch
from kd_det.engine import guarded, load_config
from kd_det.errors import ConfigError
from kd_det.registry import MODELS

PARTS = ('student', 'teacher', 'distill')


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='a config of a DistillDetector')
    parser.add_argument('--size', type=int, nargs=2, default=(320, 320), metavar=('H', 'W'), help='image size')
    parser.add_argument('--batch', type=int, default=2, help='images per step')
    parser.add_argument('--boxes', type=int, default=7, help='ground-truth boxes per image')
    parser.add_argument('--rounds', type=int, default=11, help='timed rounds')
    parser.add_argument('--warmup', type=int, default=2, help='rounds before that')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--no-memory', action='store_true', help='leave out the peak memory')
    parser.add_argument('--out', type=Path, help='write the figures as JSON')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override the config')
    parser.add_argument('--only', choices=PARTS, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


class Steps:
    """The three steps, on random weights and images."""

    def __init__(self, args: argparse.Namespace) -> None:
        cfg = load_config(args.config, args.cfg_options)
        if 'teacher' not in cfg.model:
            raise ConfigError(f'config: {args.config!r} has no model.teacher; expected a config of a DistillDetector.')
        cfg.model.teacher.checkpoint = None
        cfg.model.student.backbone.init_cfg = None
        torch.manual_seed(0)
        self.device = torch.device(args.device)
        self.model = MODELS.build(cfg.model).to(self.device).train()
        self.model.teacher.load(self.device)
        size, self.inputs, self.samples = tuple(args.size), [], []
        generator = torch.Generator().manual_seed(1)
        for _ in range(args.batch):
            image, (sample,) = probe_batch(size, self.device)
            centre = torch.rand(args.boxes, 2, generator=generator) * 0.6 + 0.2
            half = torch.rand(args.boxes, 2, generator=generator) * 0.15 + 0.02
            boxes = torch.cat([centre - half, centre + half], 1) * torch.tensor([size[1], size[0]] * 2)
            old = sample.gt_instances
            sample.gt_instances = type(old)(bboxes=boxes.to(self.device), labels=old.labels[:1].repeat(args.boxes))
            self.inputs.append(torch.randn(image.shape, generator=generator).to(self.device))
            self.samples.append(sample)
        self.inputs = torch.cat(self.inputs)

    def _step(self, model: nn.Module) -> None:
        losses, _ = model.parse_losses(model.loss(self.inputs, self.samples))
        losses.backward()
        self.model.zero_grad(set_to_none=True)

    def student(self) -> None:
        self._step(self.model.student)

    def teacher(self) -> None:
        with torch.no_grad():
            self.model.teacher.model.extract_feat(self.inputs)

    def distill(self) -> None:
        self._step(self.model)

    def seconds(self, part: str) -> float:
        self._wait()
        start = time.perf_counter()
        getattr(self, part)()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize()


def peak(args: argparse.Namespace) -> float:
    """MiB that three steps of ``args.only`` need above both networks at rest. Its own process: a peak never sinks."""
    steps = Steps(args)
    cuda = steps.device.type == 'cuda'
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        rest = torch.cuda.memory_allocated()
    else:
        Path('/proc/self/clear_refs').write_text('5')  # forget the peak of the set-up
        rest = resident('VmRSS') * 2**20
    for _ in range(3):
        getattr(steps, args.only)()
    top = torch.cuda.max_memory_allocated() if cuda else resident('VmHWM') * 2**20
    return (top - rest) / 2**20


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    register_all_modules(init_default_scope=True)
    if args.only:
        print(json.dumps(peak(args)))
        return
    steps = Steps(args)
    times: dict[str, list[float]] = {part: [] for part in PARTS}
    for round_ in range(args.warmup + args.rounds):
        for part in PARTS:
            taken = steps.seconds(part)
            if round_ >= args.warmup:
                times[part].append(taken)
    ratios = sorted(d / (s + t) for s, t, d in zip(*(times[part] for part in PARTS)))
    quarter = len(ratios) // 4
    result = dict(
        config=str(args.config),
        batch=[args.batch, 3, *args.size],
        boxes_per_image=args.boxes,
        rounds=args.rounds,
        median_seconds={part: statistics.median(times[part]) for part in PARTS},
        ratio=dict(median=statistics.median(ratios), quartiles=[ratios[quarter], ratios[-1 - quarter]]),
        torch=torch.__version__,
        device=torch.cuda.get_device_name() if steps.device.type == 'cuda' else platform.processor() or 'CPU',
        threads=torch.get_num_threads(),
        command=' '.join(['python', *sys.argv]),
    )
    for part in PARTS:
        print(f'{part:8s} {result["median_seconds"][part] * 1e3:9.1f} ms')
    low, high = result['ratio']['quartiles']
    middle = result['ratio']['median']
    print(f'distill / (student + teacher.extract_feat): {middle:.3f} (quartiles {low:.3f} to {high:.3f})')
    if not args.no_memory:
        result['peak_mib'] = {}
        for part in ('student', 'distill'):
            command = [sys.executable, *sys.argv, '--only', part]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            result['peak_mib'][part] = json.loads(output.strip().splitlines()[-1])
            print(f'{part:8s} {result["peak_mib"][part]:9.1f} MiB above both networks at rest')
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + '\n')


if __name__ == '__main__':
    sys.exit(guarded(main))
