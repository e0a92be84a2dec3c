"""The student outside: a distilled run, and what plain mmdet makes of its checkpoints."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from loaded_tool import tool
from mmengine.config import Config
from tiny import tiny_options, write_tiny_coco

from kd_det.engine import guarded, prepare_test, prepare_train, run_test, run_train
from kd_det.engine.arguments import parse_test, parse_train
from kd_det.registry import MODELS

ROOT = Path(__file__).parents[2]

CONFIG = """
_base_ = ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', {runtime!r}]
student = _base_.model
student.backbone.init_cfg = None
student.neck.out_channels = 16
student.bbox_head.update(in_channels=16, feat_channels=16, stacked_convs=1)
student.test_cfg.score_thr = 0.001
model = dict(
    _delete_=True, type='kd_det.DistillDetector', student=student,
    teacher=dict(config=dict(model=student), checkpoint={teacher!r}),
    inherit=['neck'],
    distill=dict(cwd=dict(student='neck', teacher='neck', loss=dict(type='kd_det.CWDLoss'), weight=0.1)))
optim_wrapper = dict(optimizer=dict(lr=0.02))
param_scheduler = None
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A distilled training of four steps with averaged weights; its teacher's checkpoint is deleted afterwards."""
    root = tmp_path_factory.mktemp('export')
    coco = write_tiny_coco(root / 'coco', n_train=2, n_val=2)
    config = root / 'distilled.py'
    runtime = str(ROOT / 'configs' / '_base_' / 'distill_runtime.py')
    config.write_text(CONFIG.format(runtime=runtime, teacher=str(root / 'teacher.pth')))
    torch.manual_seed(1)
    student = MODELS.build(Config.fromfile(config).model.student)
    student.init_weights()
    torch.save(dict(state_dict=student.state_dict()), root / 'teacher.pth')
    options = ['--cfg-options', *tiny_options(coco, scale=64), 'train_cfg.val_begin=9', 'randomness.seed=0']
    ema = root / 'with_ema.py'
    ema.write_text(
        f"_base_ = {str(config)!r}\ncustom_hooks = [dict(type='EMAHook', momentum=0.3), "
        "dict(type='kd_det.StudentCheckpointHook')]\n"
    )
    args = parse_train([str(ema), '--work-dir', str(root / 'w'), *options, 'train_cfg.max_epochs=2'])
    run_train(prepare_train(args))
    (root / 'teacher.pth').unlink()
    return root, ema, options


def predictions(config, checkpoint, folder, options):
    argv = [str(config), str(checkpoint), '--work-dir', str(folder), '--out', str(folder / 'out.pkl'), *options]
    args = parse_test(argv)
    metrics = run_test(prepare_test(args), args.checkpoint, args.out)
    return metrics, [dict(item['pred_instances']) for item in pickle.loads((folder / 'out.pkl').read_bytes())]


def export(*argv):
    assert guarded(tool('export_student').main, [str(a) for a in argv]) == 0


def test_wrapper_exported_and_plain_mmdet_agree_bit_for_bit(run, tmp_path):
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import DATASETS, init_default_scope
    from mmengine.runner import Runner

    root, config, options = run
    export(root / 'w' / 'epoch_2.pth', tmp_path / 'student.pth', '--config-out', tmp_path / 'plain.py')

    # 1. the wrapper itself, its own predict
    cfg = Config.fromfile(root / 'w' / config.name)
    init_default_scope('mmdet')
    wrapper = MODELS.build(copy.deepcopy(cfg.model)).eval()
    wrapper.load_state_dict(torch.load(root / 'w' / 'epoch_2.pth')['state_dict'])
    dataset = DATASETS.build(copy.deepcopy(cfg.test_dataloader.dataset))
    with torch.no_grad():
        own = [wrapper.test_step(pseudo_collate([dataset[i]]))[0].pred_instances.to_dict() for i in range(len(dataset))]
    assert all(len(item['scores']) > 0 for item in own)

    # 2. plain mmdet: its runner, the exported config and checkpoint, nothing of kd_det in either
    plain = Config.fromfile(tmp_path / 'plain.py')
    assert plain.model.type == 'RetinaNet' and 'kd_det' not in plain.pretty_text
    plain.update(work_dir=str(tmp_path / 'plain'), load_from=str(tmp_path / 'student.pth'), launcher='none')
    runner = Runner.from_cfg(plain)
    seen = []
    runner.test_loop.evaluator.process = lambda data_samples, data_batch=None: seen.extend(data_samples)
    runner.test_loop.evaluator.evaluate = lambda size: {}
    runner.test()

    # 3. tools/test.py, on the training checkpoint, the exported one, and the one that the training wrote
    others = [[sample.pred_instances.to_dict() for sample in seen]]
    metrics = []
    for index, checkpoint in enumerate(['w/epoch_2.pth', tmp_path / 'student.pth', 'w/student_last.pth']):
        metric, found = predictions(config, root / checkpoint, tmp_path / str(index), options)
        others.append(found)
        metrics.append(metric)
    assert metrics[0] == metrics[1] == metrics[2] and 'coco/bbox_mAP' in metrics[0]
    for other in others:
        for one, two in zip(own, other, strict=True):
            for key in ('bboxes', 'scores', 'labels'):
                torch.testing.assert_close(one[key], two[key], rtol=0, atol=0)


def test_the_checkpoint_holds_no_teacher_and_the_exported_one_no_adapter(run, tmp_path):
    root, _, _ = run
    full = torch.load(root / 'w' / 'epoch_2.pth')
    assert {key.split('.')[0] for key in full['state_dict']} <= {'student', 'distill'}
    slim = torch.load(root / 'w' / 'student_last.pth')
    assert slim['state_dict'].keys() == {k[8:] for k in full['state_dict'] if k.startswith('student.')}
    assert slim['meta']['dataset_meta']['classes'][:2] == ('person', 'bicycle')
    # with EMA the averaged weights are in state_dict, and these were exported
    ema = full['ema_state_dict']  # mmengine swaps: here are the weights of the last step
    assert not torch.equal(
        slim['state_dict']['bbox_head.retina_cls.weight'], ema['module.student.bbox_head.retina_cls.weight']
    )


@pytest.mark.parametrize('kind, said', [('kd_det.SyntheticDataset', True), ('CocoDataset', False)])
def test_a_config_that_still_needs_kd_det_is_told_of(tmp_path, capsys, kind, said):
    cfg = "custom_imports = dict(imports=['nowhere_to_be_found'])\n"  # the tool reads a config, and does not run it
    cfg += f"model = dict(type='RetinaNet')\ntest_dataloader = dict(dataset=dict(type='{kind}'))\n"
    torch.save(dict(state_dict={'a': torch.ones(1)}, meta=dict(cfg=cfg)), tmp_path / 'a.pth')
    export(tmp_path / 'a.pth', tmp_path / 'b.pth', '--config-out', tmp_path / 'b.txt')
    out = capsys.readouterr().out
    assert ('plain mmdet' in out) == (f'b.txt is not plain mmdet: it needs {kind}.' in out) == said
