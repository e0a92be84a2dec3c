"""YOLOX and RTMDet in whole runs of their configs: mosaics, batch resizing, switches, averages, schedules."""

from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from tiny import write_tiny_coco
from tiny_families import rtmdet, yolox
from tiny_models import build

CONFIGS = Path(__file__).parents[2] / 'configs'
SIDE = 64


def shrink(value):
    """A pipeline, or hooks that hold one, with images of ``SIDE`` pixels a side."""
    side = (SIDE, SIDE)
    sizes = dict(img_scale=side, scale=side, crop_size=side, size=side, border=(-SIDE // 2, -SIDE // 2))
    if isinstance(value, dict):
        return {k: sizes[k] if k in sizes else shrink(v) for k, v in value.items()}
    return [shrink(v) for v in value] if isinstance(value, list) else value


def small_run(name, tmp_path, teacher, epochs):
    """The config on eight images of 64x64, with an eighth of the width and a tiny teacher of random weights."""
    root = write_tiny_coco(tmp_path / 'coco', n_train=8, n_val=1, size=(SIDE, SIDE))
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    for part, options in dict(
        backbone=dict(deepen_factor=0.2, widen_factor=0.125, init_cfg=None),
        neck=dict(in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1),
        bbox_head=dict(in_channels=32, feat_channels=32),
    ).items():
        cfg.model.student[part].update(options)
    cfg.model.teacher = dict(config=ConfigDict(teacher), checkpoint=None)
    cfg.custom_hooks = shrink(cfg.custom_hooks)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False, batch_size=2)
        loader.dataset = shrink(loader.dataset)
        loader.dataset.get('dataset', loader.dataset).update(data_root=f'{root}/', filter_cfg=None)
    cfg.val_evaluator.ann_file = str(root / 'annotations' / 'instances_val2017.json')
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = cfg.param_scheduler = None
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_interval=epochs)
    cfg.default_hooks.checkpoint.interval = epochs
    cfg.default_hooks.logger.interval = 1
    cfg.work_dir, cfg.experiment_name = str(tmp_path / 'work'), f'{tmp_path.name}_{name}'
    return cfg


def train(cfg):
    """Run it, and return the runner and the context of every step."""
    student = ConfigDict(cfg.model.student)
    runner = Runner.from_cfg(cfg)
    contexts, context = [], runner.model._context

    def spy(inputs, samples):
        contexts.append(dict(context(inputs, samples), shape=tuple(inputs.shape[-2:])))
        return contexts[-1]

    runner.model._context = spy
    runner.train()
    check_export(runner, student)
    return runner, contexts


def check_export(runner, student):
    """The student's checkpoint is the average of its weights, and fits the plain detector."""
    plain = build(student)
    weights = torch.load(Path(runner.work_dir) / 'student_last.pth', weights_only=False)['state_dict']
    plain.load_state_dict(weights)
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook').ema_model.module
    averages = ema.student.state_dict()
    assert all(torch.equal(value, averages[key]) for key, value in weights.items())
    assert any(not torch.equal(value, averages[key]) for key, value in runner.model.student.state_dict().items())


def logged(runner, name):
    return torch.as_tensor(runner.message_hub.get_scalar(f'train/{name}').data[0])


def test_yolox(tmp_path):
    """Mosaic and batch resizing; then the hook ends the mixing and switches the L1 loss on, in the student."""
    cfg = small_run('fgd_yolox_l_m', tmp_path, yolox(classes=80, base=32, channels=24), epochs=3)
    cfg.custom_hooks[0]['num_last_epochs'] = 1
    cfg.model.student.data_preprocessor.batch_augments[0].update(random_size_range=(SIDE, 2 * SIDE), interval=2)
    runner, contexts = train(cfg)

    losses = logged(runner, 'loss_fgd')
    assert len(losses) == len(contexts) == 12 and bool((losses > 0).all()) and bool(torch.isfinite(losses).all())
    assert len(logged(runner, 'loss_l1')) == 8  # from the second of three epochs on
    assert runner.model.student.bbox_head.use_l1 and not hasattr(runner.model.teacher.model, 'bbox_head')
    assert not {'Mosaic', 'MixUp'} & {
        type(transform).__name__ for transform in live_transforms(runner.train_dataloader.dataset)
    }
    assert len({c['shape'] for c in contexts}) > 1  # images were resized, and the losses know their size
    for c in contexts:
        assert c['batch_input_shape'] == c['shape'] and set(c['image_sizes']) == {c['shape']}
        for boxes in c['gt_bboxes']:
            assert len(boxes) and bool((boxes[:, 2:] <= torch.tensor(c['shape'][::-1])).all())


def live_transforms(dataset):
    return [t for t, kind in zip(dataset.pipeline, dataset.pipeline_types) if kind not in dataset._skip_type_keys]


def test_rtmdet(tmp_path):
    """Cached mosaics until the pipeline is switched; the distillation stops where the schedule says."""
    cfg = small_run('cwd_rtmdet_m_s', tmp_path, rtmdet(classes=80, base=32, channels=24), epochs=3)
    switch = next(hook for hook in cfg.custom_hooks if hook['type'] == 'PipelineSwitchHook')
    assert switch['switch_epoch'] == cfg.model.distill.cwd.schedule.end == 280
    switch['switch_epoch'] = cfg.model.distill.cwd.schedule.end = 2
    runner, contexts = train(cfg)

    losses = logged(runner, 'loss_cwd')
    assert len(losses) == len(contexts) == 12 and bool(torch.isfinite(losses).all())
    assert bool((losses[:8] > 0).all()) and bool((losses[8:] == 0).all())
    names = [type(transform).__name__ for transform in runner.train_dataloader.dataset.pipeline.transforms]
    assert 'CachedMosaic' not in names and 'RandomResize' in names
