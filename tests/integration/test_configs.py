"""Every config of the folder trains a step; those of the real sets read the real sets."""

import os
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

import kd_det  # noqa: F401
from kd_det.losses import CRDLoss
from kd_det.registry import MODELS

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / 'configs'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))
PLAIN = sorted(path.stem for path in CONFIGS.glob('plain/*.py'))
SHARED_DATA = ROOT.parent / 'shared' / 'data'
#: Terms that may be 0: the teacher bounds nothing where the student is as good, and a random student may be.
MAY_BE_ZERO = {'roi_bounded', 'rpn_bounded', 'bounded', 'multibox_l2'}

register_all_modules(init_default_scope=True)


# ---------------------------------------------------------------------------------------------------- the real sets

#: Images and boxes per class, from the tables and texts of the sets' own READMEs; boxes per class of cards from no
#: table: only their sum is given there.
BCCD = dict(train=(205, dict(Platelets=209, RBC=2381, WBC=214)), val=(87, dict(Platelets=83, RBC=967, WBC=87)))
CARDS = dict(train=(254, 471), val=(52, 87))


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A working folder in which ``data/<set>`` is the shared copy, as the configs expect it."""
    if not SHARED_DATA.is_dir():
        pytest.skip('needs the shared copies of the real sets')
    (tmp_path / 'data').symlink_to(SHARED_DATA)
    monkeypatch.chdir(tmp_path)


def loaders(name):
    cfg = Config.fromfile(CONFIGS / 'plain' / f'{name}.py')
    return cfg, dict(train=DATASETS.build(cfg.train_dataloader.dataset), val=DATASETS.build(cfg.val_dataloader.dataset))


@pytest.mark.parametrize('fmt', ['coco', 'voc'])
def test_bccd_is_read_whole(data, fmt):
    _, sets = loaders(f'retina_r50_bccd_{fmt}')
    for split, (images, boxes) in BCCD.items():
        names = sets[split].metainfo['classes']
        found = dict.fromkeys(names, 0)
        for index in range(len(sets[split])):
            for instance in sets[split].get_data_info(index)['instances']:
                found[names[instance['bbox_label']]] += 1
        assert len(sets[split]) == images
        assert found == boxes


@pytest.mark.parametrize('fmt', ['coco', 'voc'])
def test_cards_are_read_whole(data, fmt):
    _, sets = loaders(f'retina_r50_cards_{fmt}')
    for split, (images, boxes) in CARDS.items():
        assert len(sets[split]) == images
        assert sum(len(sets[split].get_data_info(i)['instances']) for i in range(images)) == boxes


@pytest.mark.parametrize('name', ['bccd', 'cards'])
def test_json_and_xml_give_the_same_boxes(data, name):
    coco, voc = (loaders(f'retina_r50_{name}_{fmt}')[1] for fmt in ('coco', 'voc'))
    for split in ('train', 'val'):
        boxes = []
        for dataset in (coco[split], voc[split]):
            infos = [dataset.get_data_info(i) for i in range(len(dataset))]
            boxes.append(
                {
                    os.path.basename(info['img_path']): [
                        (*map(float, x['bbox']), x['bbox_label']) for x in info['instances']
                    ]
                    for info in infos
                }
            )
        assert boxes[0] == boxes[1]


@pytest.mark.parametrize('name', ['bccd', 'cards'])
@pytest.mark.parametrize('fmt', ['coco', 'voc'])
def test_pipelines_and_metric(data, name, fmt):
    """A training sample fits the intended size; the ground truth as prediction has mAP 1 in the original image."""
    cfg, sets = loaders(f'retina_r50_{name}_{fmt}')
    for index in range(0, len(sets['train']), 60):
        sample = sets['train'][index]
        height, width = sample['inputs'].shape[1:]
        assert sorted((height, width))[0] <= 480 and sorted((height, width))[1] == 640
        boxes = sample['data_samples'].gt_instances.bboxes.tensor
        assert len(boxes) and boxes.min() >= 0 and bool((boxes[:, 2:] <= torch.tensor([width, height])).all())
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = sets['val'].metainfo
    for index in range(len(sets['val'])):
        sample = sets['val'][index]['data_samples']
        truth = sample.gt_instances
        result = sample.to_dict()
        for key in ('gt_instances', 'ignored_instances'):
            result[key]['bboxes'] = result[key]['bboxes'].tensor
        result['pred_instances'] = dict(
            bboxes=truth.bboxes.tensor.clone(), labels=truth.labels, scores=torch.ones(len(truth.labels))
        )
        metric.process({}, [result])
    values = metric.evaluate(len(sets['val']))
    key = dict(coco='coco/bbox_mAP', voc='pascal_voc/mAP')[fmt]
    assert values[key] == pytest.approx(1)


# ------------------------------------------------------------------------------------------------- what is assumed


def random_weights(model_cfg):
    """The same network without any download: backbones start at random. C4 heads, a stage for each RoI, sample few."""
    model_cfg = Config(dict(model=model_cfg)).model  # a copy
    for part in (model_cfg.backbone, model_cfg.get('roi_head', {}).get('shared_head')):
        if part and (part.get('init_cfg') or {}).get('type') == 'Pretrained':
            part.init_cfg = None
    if 'shared_head' in model_cfg.get('roi_head', {}):
        model_cfg.train_cfg.rcnn.sampler.num = 16
    return model_cfg


@pytest.mark.parametrize(
    'name',
    ['fgd_retina_r101_r50', 'fgd_fcos_r101_r50', 'fgd_gfl_r101_r50', 'fgd_faster_r101_r50', 'fgd_maskrcnn_r101_r50'],
)
def test_neck_outputs_are_what_the_authors_tap(name):
    """The authors tap neck.fpn_convs.<i>.conv, our configs levels of the neck: the same tensors, in each family."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    neck = MODELS.build(dict(cfg.model.student.neck, _scope_='mmdet'))
    taps = []
    for conv in neck.fpn_convs:
        conv.conv.register_forward_hook(lambda module, args, output: taps.append(output))
    levels = neck([torch.randn(1, c, 2 ** (5 - i), 2 ** (5 - i)) for i, c in enumerate(neck.in_channels)])
    wanted = len(taps) if cfg.model.distill.fgd.student == 'neck[0:4]' else len(levels)
    assert wanted == len(taps) == (4 if 'roi_head' in cfg.model.student else 5)
    assert all(torch.equal(level, tap) for level, tap in zip(levels[:wanted], taps, strict=True))


def test_ssd_students_priors_are_the_teachers():
    """Equal maps and equal priors at 300 px; the boxes that the two heads decode lie row by row on the same prior."""
    cfg = Config.fromfile(CONFIGS / 'ssdkd_ssd300_vgg16_mobilenetv2.py')
    teacher_cfg = get_config(cfg.model.teacher.config)
    found = []
    for model_cfg in (cfg.model.student, teacher_cfg.model):
        model = MODELS.build(random_weights(model_cfg)).eval()
        with torch.no_grad():
            scores, deltas = model(torch.zeros(1, 3, 300, 300))
        sizes = [tuple(score.shape[-2:]) for score in scores]
        priors = torch.cat(model.bbox_head.prior_generator.grid_priors(sizes, device='cpu'))
        channels = [(score.shape[1], delta.shape[1]) for score, delta in zip(scores, deltas, strict=True)]
        found.append((sizes, channels, priors))
    assert found[0][0] == found[1][0] == [(n, n) for n in (38, 19, 10, 5, 3, 1)]
    assert found[0][1] == found[1][1]
    assert torch.equal(found[0][2], found[1][2]) and len(found[0][2]) == 8732


# -------------------------------------------------------------------------------------------------- a training step


def batch(num_classes, ssd=False, with_mask=False, dino=False):
    """Two images of different size, three boxes on one and none on the other, as mmdet's loader would give them."""
    shapes = [(3, 300, 300)] * 2 if ssd else [(3, 128, 192), (3, 112, 160)]
    if dino:  # its 900 proposals need as many cells
        shapes = [(3, 192, 288), (3, 160, 256)]
    packed = demo_mm_inputs(
        2, shapes, num_items=[3, 0], num_classes=num_classes, with_mask=with_mask, use_box_type=True
    )
    for sample in packed['data_samples']:
        del sample.ignored_instances.bboxes
        sample.ignored_instances.bboxes = type(sample.gt_instances.bboxes)(torch.zeros(0, 4))
        sample.gt_instances.instance_ids = torch.arange(len(sample.gt_instances))
    return packed


def classes_of(detector):
    for head in ('mask_head', 'bbox_head'):
        if hasattr(detector, head):
            return getattr(detector, head).num_classes
    return detector.roi_head.bbox_head.num_classes


@pytest.mark.slow
@pytest.mark.parametrize('name', PLAIN)
def test_plain_config_trains_a_step(name):
    cfg = Config.fromfile(CONFIGS / 'plain' / f'{name}.py')
    torch.manual_seed(0)
    model = MODELS.build(random_weights(cfg.model))
    model.init_weights()
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    before = {k: v.clone() for k, v in model.named_parameters()}
    model.train()
    logs = model.train_step(batch(classes_of(model), ssd='ssd' in name, with_mask=model.with_mask), optim)
    assert all(torch.isfinite(value).all() for value in logs.values())
    assert any(not torch.equal(before[k], v) for k, v in model.backbone.named_parameters(prefix='backbone'))


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_distilled_config_trains_a_step(name):
    """As tools/train.py would run it, with random weights in teacher and student."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.model.teacher.checkpoint = None  # random weights, on purpose
    for term in cfg.model.distill.values():
        if 'paraphraser' in term.loss:
            term.loss.paraphraser = None
    cfg.model.student = random_weights(cfg.model.student)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    optim = build_optim_wrapper(model, cfg.optim_wrapper)
    model.train()
    student, teacher = model.student, model.teacher.model
    teacher_weights = {id(p) for p in teacher.parameters()}
    own = dict(model.named_parameters())
    assert teacher_weights and not teacher_weights & {id(p) for p in own.values()}
    assert {key.split('.')[0] for key in model.state_dict()} <= {'student', 'distill'}
    for part in cfg.model.get('inherit', []):
        there = teacher.get_submodule(part).state_dict()
        same = [
            k for k, v in student.get_submodule(part).state_dict().items() if k in there and v.shape == there[k].shape
        ]
        assert same and all(torch.equal(student.get_submodule(part).state_dict()[k], there[k]) for k in same)

    for module in model.modules():
        if isinstance(module, CRDLoss):
            module.hold(3)  # as InstanceIdHook does
    MessageHub.get_current_instance().update_info('iter', 0)  # as the runner does, for YOLOX's multi-scale training
    data = batch(classes_of(student), ssd='ssd' in name, with_mask=student.with_mask, dino='dino' in name)
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    total, logs = model.parse_losses(losses)
    assert all(torch.isfinite(value).all() for value in logs.values())

    distilled = 0
    for term in cfg.model.distill:
        parts = {key: logs[key] for key in logs if key == f'loss_{term}' or key.startswith(f'loss_{term}_')}
        assert parts
        for key, value in parts.items():
            assert value >= 0 if key.removeprefix('loss_') in MAY_BE_ZERO else value > 0, key
            distilled = distilled + losses[key]
    # The terms alone reach the student, as deep as its last backbone stage.
    stages = ('layer4', 'layer7', 'stage4') if 'c4' not in name else ('layer3',)
    deep = [p for k, p in student.backbone.named_parameters() if k.startswith(stages) and p.requires_grad]
    grads = torch.autograd.grad(distilled, deep, retain_graph=True, allow_unused=True)
    assert any(g is not None and bool(g.abs().sum() > 0) for g in grads)

    frozen = [p.clone() for p in teacher.parameters()]
    before = {k: p.detach().clone() for k, p in own.items()}
    optim.update_params(total)
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(frozen, teacher.parameters(), strict=True))
    moved = {k.split('.')[1] for k, p in own.items() if k.startswith('student.') and not torch.equal(before[k], p)}
    assert moved >= {n for n, part in student.named_children() if any(True for _ in part.parameters())}
    for key, p in own.items():
        assert torch.isfinite(p).all(), key


@pytest.mark.slow
@pytest.mark.parametrize('name', ['fgd_retina_r50_r18_bccd_voc', 'fgd_retina_r50_r18_cards_coco'])
def test_real_set_from_config_to_student(data, tmp_path, name):
    """An epoch of a few small real images with the config's own loaders, hooks and metric; then the plain student."""
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.work_dir = str(tmp_path / 'work')
    cfg.model.teacher.checkpoint = None
    cfg.model.student = random_weights(cfg.model.student)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    cfg.default_hooks.checkpoint.interval = 1
    cfg.train_dataloader.batch_size = 2
    for loader, count in ((cfg.train_dataloader, 4), (cfg.val_dataloader, 3), (cfg.test_dataloader, 3)):
        loader.num_workers, loader.persistent_workers = 0, False
        loader.dataset.indices = count
        for transform in loader.dataset.pipeline:
            if transform.type == 'Resize':
                transform.scale = (192, 144)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter == 2
    key = 'val/pascal_voc/mAP' if 'voc' in name else 'val/coco/bbox_mAP'
    assert 0 <= runner.message_hub.get_scalar(key).current() <= 1
    assert (tmp_path / 'work' / 'epoch_1.pth').is_file()

    alone = Config.fromfile(CONFIGS / 'plain' / f'{name.replace("fgd_retina_r50_", "retina_")}.py')
    plain = MODELS.build(random_weights(alone.model))
    checkpoint = torch.load(tmp_path / 'work' / 'student_last.pth', weights_only=False)
    plain.load_state_dict(checkpoint['state_dict'])
    trained = runner.model.student.state_dict()
    assert all(torch.equal(value, trained[k]) for k, value in plain.state_dict().items())
