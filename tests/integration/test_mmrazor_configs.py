"""mmrazor's own detection configs train through ``tools/train.py``, unchanged but for data and checkpoint paths."""

import math

import pytest
import torch
from tiny import tiny_options, write_tiny_coco

from kd_det.checkpoint import export_student
from kd_det.engine import prepare_train, run_train
from kd_det.engine.arguments import parse_train

TEACHER = 'model.teacher_ckpt={ckpt}'
NOT_ONLINE = 'model.teacher.pretrained=False'  # the URL of that checkpoint, in mmrazor's spelling
CONFIGS = {
    'cwd/cwd_fpn_frcnn_r101_frcnn_r50_1x_coco.py': ([TEACHER], 'loss_cwd_fpn', 5),
    'cwd/cwd_fpn_retina_r101_retina_r50_1x_coco.py': ([TEACHER, NOT_ONLINE], 'loss_cwd_fpn', 5),
    'cwd/cwd_cls_head_gfl_r101_fpn_gfl_r50_fpn_1x_coco.py': ([TEACHER, NOT_ONLINE], 'loss_cwd_fpn', 5),
    'fbkd/fbkd_fpn_faster-rcnn_r101_faster-rcnn_r50_1x_coco.py': (
        [TEACHER, 'model.architecture.pretrained=False'],
        'loss_s',
        4,
    ),
    'mgd/mgd_fpn_retina_x101_retina_r50_2x_coco.py': (
        [
            TEACHER,
            'model.architecture.neck.init_cfg.checkpoint={ckpt}',
            'model.architecture.bbox_head.init_cfg.checkpoint={ckpt}',
        ],
        'loss_mgd_fpn',
        5,
    ),
    'pkd/pkd_fpn_faster-rcnn_r101_faster-rcnn_r50_2x_coco.py': ([TEACHER], 'loss_pkd_fpn', 4),
    'pkd/pkd_fpn_fcos_x101_retina_r50_1x_coco.py': ([TEACHER], 'loss_pkd_fpn', 4),
    'pkd/pkd_fpn_mask-rcnn_swin_retina_r50_2x_coco.py': ([TEACHER], 'loss_pkd_fpn', 4),
    'pkd/pkd_fpn_reppoints_x101-dcn_reppoints_r50_2x_coco.py': ([TEACHER], 'loss_pkd_fpn', 4),
    'pkd/pkd_fpn_retina_x101_retina_r50_2x_coco.py': ([TEACHER], 'loss_pkd_fpn', 4),
}


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Data, and checkpoints where mmdet's configs look for them, so that nothing is downloaded."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.hub import get_config

    register_all_modules(init_default_scope=False)
    root = tmp_path_factory.mktemp('mmrazor')
    write_tiny_coco(root / 'coco', n_train=1, n_val=1)
    torch.manual_seed(0)
    cache = root / 'torch' / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    torch.save({'conv1.weight': 0.05 * torch.randn(64, 3, 7, 7)}, cache / 'resnet50-0676ba61.pth')
    cfg = get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py').model
    parts = {name: MODELS.build(dict(_scope_='mmdet', **cfg[name])) for name in ('neck', 'bbox_head')}
    weights = {f'{name}.{key}': value for name, part in parts.items() for key, value in part.state_dict().items()}
    torch.save(dict(meta={}, state_dict=weights), root / 'teacher.pth')
    return root


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_config_trains_a_step(name, files, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(files / 'torch'))
    paths, loss, levels = CONFIGS[name]
    # one image, no checkpoint of half a gigabyte; the first config is validated too, student and teacher
    quick = [
        'default_hooks.checkpoint.interval=-1',
        'default_hooks.checkpoint.save_last=False',
        f'train_cfg.val_begin={0 if "cwd_fpn_frcnn" in name else 9}',
    ]
    args = parse_train(
        [
            f'mmrazor::distill/mmdet/{name}',
            '--work-dir',
            str(tmp_path),
            '--cfg-options',
            *tiny_options(files / 'coco'),
            *[path.format(ckpt=files / 'teacher.pth') for path in paths],
            *quick,
        ]
    )
    cfg = prepare_train(args)
    runner = run_train(cfg)
    assert runner.iter == 1
    scalars = {key: float(value.current()) for key, value in runner.message_hub.log_scalars.items() if 'loss' in key}
    distilled = {key: value for key, value in scalars.items() if key.startswith(f'train/distill.{loss}')}
    assert len(distilled) == levels and all(math.isfinite(value) for value in scalars.values())
    assert sum(distilled.values()) > 0
    trained = {id(p) for p in runner.optim_wrapper.optimizer.state}
    student = [p for p in runner.model.architecture.parameters() if p.requires_grad]
    assert sum(id(p) in trained for p in student) > 0.9 * len(student), 'the step did not reach the student'
    if name.startswith('cwd/cwd_fpn_frcnn'):
        check_export(runner, tmp_path)


def check_export(runner, folder):
    """The student of mmrazor's checkpoint is a plain mmdet checkpoint, with the plain config in it."""
    from mmdet.apis import init_detector

    checkpoint = dict(state_dict=runner.model.state_dict(), meta=dict(cfg=runner.cfg.pretty_text))
    path = export_student(checkpoint, folder / 'student.pth', config_out=folder / 'student.py')
    model = init_detector(str(folder / 'student.py'), str(path), device='cpu')
    assert type(model).__name__ == 'FasterRCNN'
    torch.testing.assert_close(model.state_dict(), runner.model.architecture.state_dict(), rtol=0, atol=0)
