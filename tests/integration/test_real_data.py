"""``tools/real_data.py`` on a few images of a real set: three trainings, both metrics, and what it writes."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import loaded_tool
import pytest
import torch
from mmdet.models import RetinaNet
from mmengine.runner import load_checkpoint
from mmengine.structures import InstanceData

import kd_det  # noqa: F401
from kd_det.bench.display import Display
from kd_det.engine import load_config
from kd_det.errors import ConfigError, DataError
from kd_det.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
BCCD = ROOT.parent / 'shared' / 'data' / 'bccd'
IMAGES = 4

tool = loaded_tool.tool('real_data')


def arguments(folder: Path, *more: str):
    return tool.parse_args(
        ['--epochs', '1', '--data-root', str(folder / 'bccd'), '--work-dir', str(folder / 'work'), *more]
    )


def run(folder: Path, *more: str) -> tuple[dict, str]:
    stream = io.StringIO()
    return tool.run(arguments(folder, *more), Display(stream)), stream.getvalue()


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """The first images of each split, with their boxes, in both formats."""
    if not BCCD.is_dir():
        pytest.skip('needs the shared copy of the real set')
    folder = tmp_path_factory.mktemp('real')
    few = folder / 'bccd'
    (few / 'annotations').mkdir(parents=True)
    (few / 'VOC2007' / 'ImageSets' / 'Main').mkdir(parents=True)
    for name in ('JPEGImages', 'Annotations'):
        (few / 'VOC2007' / name).symlink_to(BCCD / 'VOC2007' / name)
    for split in ('train', 'val'):
        content = json.loads((BCCD / 'annotations' / f'{split}.json').read_text())
        content['images'] = content['images'][:IMAGES]
        kept = {image['id'] for image in content['images']}
        content['annotations'] = [box for box in content['annotations'] if box['image_id'] in kept]
        (few / 'annotations' / f'{split}.json').write_text(json.dumps(content))
        names = ''.join(f'{Path(image["file_name"]).stem}\n' for image in content['images'])
        (few / 'VOC2007' / 'ImageSets' / 'Main' / f'{split}.txt').write_text(names)
    return folder


@pytest.fixture(scope='module')
def first(folder) -> tuple[dict, str]:
    return run(folder)


@pytest.mark.slow
def test_three_parts_are_trained_fairly_and_measured(folder, first):
    results, said = first
    assert json.loads((folder / 'work' / 'results.json').read_text()) == json.loads(json.dumps(results))
    teacher, plain, fgd = results['runs']
    assert [part['name'] for part in results['runs']] == ['teacher', 'plain', 'fgd']
    for part in results['runs']:
        assert part['steps'] == 1
        assert set(part['coco']) == {'mAP', 'AP50', 'AP75', 'small', 'medium', 'large'}
        assert set(part['coco_classes']) == {'Platelets', 'RBC', 'WBC'}
        assert part['voc']['eval_mode'] == 'area'
        assert f'{part["name"]}, seed 0: COCO mAP' in said
    assert plain['initial_weights'] == fgd['initial_weights'] != teacher['initial_weights']
    assert plain['data'] == fgd['data']
    assert plain['curve']['distill_loss'] == [0] and fgd['curve']['distill_loss'][0] > 0
    assert plain['curve']['loss'] == pytest.approx(fgd['curve']['loss'], rel=1e-4)  # the first step's task losses

    boxes = {s: json.loads((folder / f'bccd/annotations/{s}.json').read_text())['annotations'] for s in results['data']}
    assert results['data'] == {s: dict(images=IMAGES, boxes=len(b)) for s, b in boxes.items()}
    weights = {}
    for name in ('plain', 'fgd'):
        model = MODELS.build(load_config(ROOT / 'configs/small/retina_mobilenetv2_bccd_cpu.py').model)
        load_checkpoint(model, str(folder / f'work/{name}-seed0/{name}.pth'), strict=True)
        weights[name] = model.neck.state_dict()
        assert fgd['parameters'] == sum(p.numel() for p in model.parameters())
    assert any(not torch.equal(weights['plain'][key], weights['fgd'][key]) for key in weights['plain'])


@pytest.mark.slow
def test_finished_parts_are_reused_and_changed_ones_are_not(folder, first, monkeypatch):
    files = [folder / f'work/{name}-seed0/{name}.pth' for name in ('teacher', 'plain', 'fgd')]
    before = [os.stat(file).st_mtime_ns for file in files]
    again, said = run(folder)
    assert [os.stat(file).st_mtime_ns for file in files] == before and said.count('reused') == 3
    assert again['runs'] == first[0]['runs']
    longer = tool.make_part(arguments(folder, '--epochs', '2'), 'teacher', 0)
    assert longer.folder == files[0].parent and longer.finished() is None


@pytest.mark.slow
@pytest.mark.parametrize('missed', [None, 'Platelets'])
def test_both_metrics_of_a_known_detector(folder, first, monkeypatch, missed):
    """A detector that returns the truth has mAP 1 in COCO and VOC; one that misses a class of three, 2/3."""

    def predict(self, inputs, samples, rescale=True):
        for sample in samples:
            truth = sample.gt_instances
            found = InstanceData(
                bboxes=truth.bboxes.clone(), labels=truth.labels.clone(), scores=torch.ones(len(truth))
            )
            sample.pred_instances = found[found.labels != 0] if missed else found  # Platelets are class 0
        return samples

    monkeypatch.setattr(RetinaNet, 'predict', predict)
    args = arguments(folder)
    figures = tool.evaluate(args, tool.make_part(args, 'plain', 0))
    expected = 2 / 3 if missed else 1.0
    assert figures['coco']['mAP'] == pytest.approx(expected, abs=1e-3)
    assert figures['voc']['mAP'] == pytest.approx(expected, abs=1e-3)
    assert figures['coco_classes'] == pytest.approx(dict(Platelets=0.0 if missed else 1.0, RBC=1.0, WBC=1.0), abs=1e-3)


@pytest.mark.slow
def test_publish(folder, first, tmp_path):
    results = json.loads(json.dumps(first[0]))
    for part, figure in zip(results['runs'], (0.6, 0.4, 0.45)):
        part['coco']['mAP'] = part['voc']['mAP'] = figure
    readme = tmp_path / 'README.md'
    readme.write_text('before\n<!-- real:begin -->\nold\n<!-- real:end -->\nafter\n')
    for _ in range(2):  # the second time replaces the first
        tool.publish(results, tmp_path)
    text = readme.read_text()
    assert text.startswith('before\n') and text.endswith('\nafter\n') and 'old' not in text
    assert text.count('| FGD student | 45.0 |') == 1
    assert text.count('docs/real_data.md') == 2  # one link
    assert '+5.0 COCO mAP (25% of the gap of 20.0 to the teacher)' in text and 'one seed (0)' in text
    assert json.loads((tmp_path / 'docs/results/real_cpu.json').read_text()) == results
    page = (tmp_path / 'docs/real_data.md').read_text()
    assert '| plain student | 40.0 |' in page and results['command'] in page
    assert 'not measured' in page and 'Shenggan/BCCD_Dataset' in page


def test_several_seeds_are_averaged():
    def part(name, seed, figure):
        coco = dict(mAP=figure, AP50=figure, AP75=figure, small=-1.0, medium=figure, large=figure)
        return dict(
            name=name, seed=seed, coco=coco, coco_classes=dict(RBC=figure), voc=dict(mAP=figure), parameters=2e6,
            flops=3e9, train_seconds=10 * (seed + 1),
        )  # fmt: skip

    runs = [part(n, s, f + 0.1 * s) for s in (0, 1) for n, f in (('teacher', 0.5), ('plain', 0.2), ('fgd', 0.3))]
    rows = tool.table(dict(runs=runs)).splitlines()
    assert rows[3] == (
        '| plain student | 25.0 ± 7.1 | 25.0 ± 7.1 | 25.0 ± 7.1 | – | 25.0 ± 7.1 | 25.0 ± 7.1 | 25.0 ± 7.1 | '
        '25.0 ± 7.1 | 2.00 M | 3.00 G | 15 |'
    )


def test_an_unfair_comparison_is_refused():
    runs = [dict(name=name, seed=0, initial_weights='a', data='b', steps=3) for name in ('teacher', 'plain', 'fgd')]
    tool.check_fairness(runs)
    runs[0]['steps'] = 9  # the teacher may differ
    tool.check_fairness(runs)
    runs[2]['initial_weights'] = 'c'
    with pytest.raises(RuntimeError, match='initial_weights is c, but a for the plain student'):
        tool.check_fairness(runs)


def test_bad_arguments(tmp_path):
    with pytest.raises(ConfigError, match="--set is 'bcd', expected one of bccd.*bccd"):
        tool.run(tool.parse_args(['--set', 'bcd']))
    with pytest.raises(ConfigError, match='--seeds'):
        tool.run(tool.parse_args(['--seeds', '1', '1']))
    with pytest.raises(ConfigError, match='--epochs is 0'):
        tool.run(tool.parse_args(['--epochs', '0']))
    with pytest.raises(DataError, match='train_dataloader.dataset'):
        tool.run(arguments(tmp_path))
    (tmp_path / 'README.md').write_text('<!-- real:begin -->\n')
    with pytest.raises(DataError, match='real:end'):
        tool.write_between_marks(tmp_path / 'README.md', tool.MARK_BEGIN, tool.MARK_END, 'text')
