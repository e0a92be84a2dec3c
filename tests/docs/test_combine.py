"""The configs that docs/combine.md prints are built, and step."""

import re
from pathlib import Path

import pytest
import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from tiny_models import total

from kd_det.detectors.teacher import named_teachers
from kd_det.engine.preflight import check_model
from kd_det.registry import MODELS

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(_base_ = '\./.*?)```", (ROOT / 'docs' / 'combine.md').read_text(), re.DOTALL)


def test_there_are_three():
    assert len(BLOCKS) == 3


@pytest.mark.slow
@pytest.mark.parametrize('number', range(3), ids=['two teachers', 'average', 'itself'])
def test_printed_config_steps(tmp_path, number):
    path = tmp_path / 'printed.py'
    path.write_text(BLOCKS[number].replace("'./", f"'{ROOT}/configs/"))
    cfg = Config.fromfile(path)
    check_model(cfg)
    for one in named_teachers(cfg.model.get('teacher')).values():
        if one and 'checkpoint' in one:
            one.checkpoint = None
    cfg.model.student.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    for teacher in model.teachers.values():
        if teacher.follows:
            teacher.follow(model.student)
            with torch.no_grad():  # a step away from its average, to which it is equal at the start
                model.student.backbone.layer2[0].downsample[0].weight.mul_(1.1)
    data = demo_mm_inputs(1, [(3, 128, 192)], num_items=[3], num_classes=80, use_box_type=True)
    for sample in data['data_samples']:
        del sample.ignored_instances
        sample.ignored_instances = type(sample.gt_instances)(
            bboxes=type(sample.gt_instances.bboxes)(torch.zeros(0, 4)), labels=torch.zeros(0, dtype=torch.long)
        )
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    assert {f'loss_{term}' for term in cfg.model.distill} <= set(losses)
    total({k: v for k, v in losses.items() if k[5:] in cfg.model.distill}).backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.student.backbone.layer2.parameters())
