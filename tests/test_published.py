"""The configs against docs/published_results.csv, and both against the model zoo of the installed mmdet."""

import csv
import functools
import importlib.util
import re
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
NAMES = sorted(path.stem for path in CONFIGS.glob('*.py'))
ROWS = {row['config']: row for row in csv.DictReader((ROOT / 'docs' / 'published_results.csv').open())}
#: What FGD's authors add to the student's head and test settings in their FCOS config; all else is mmdet's.
FCOS_EXTRAS = dict(
    bbox_head=dict(
        norm_on_bbox=True, center_sampling=True, conv_bias=True, loss_bbox=dict(type='GIoULoss', loss_weight=1.0)
    ),
    test_cfg=dict(nms=dict(type='nms', iou_threshold=0.6)),
)
#: Baselines that the authors trained themselves; all others are mmdet's.
OWN_BASELINES = dict(ld_gfl_r101_r50=40.1, ld_gfl_r101_r18=35.8, fgd_yolox_l_m=45.9, cwd_rtmdet_m_s=44.6)


@functools.cache
def load(name):
    return Config.fromfile(CONFIGS / f'{name}.py', import_custom_modules=False)


def header(name):
    lines = (CONFIGS / f'{name}.py').read_text().splitlines()
    return ' '.join(line.lstrip('# ') for line in lines if line.startswith('#'))


@pytest.fixture(scope='module')
def zoo():
    """mmdet's own records: config path -> (box mAP on COCO, or mask mAP where there are no boxes; checkpoint URL)."""
    folder = Path(importlib.util.find_spec('mmdet').origin).parent / '.mim' / 'configs'
    records = {}
    for metafile in folder.glob('*/metafile.yml'):
        content = yaml.safe_load(metafile.read_text())
        for model in content['Models'] if isinstance(content, dict) else content:
            metrics = {k: v for r in reversed(model.get('Results') or []) for k, v in (r.get('Metrics') or {}).items()}
            figure = metrics.get('box AP', metrics.get('mask AP'))
            url = model.get('Weights')
            if figure is not None and url and model.get('Config'):
                records[model['Config'].removeprefix('configs/')] = (float(figure), url)
    assert len(records) > 300
    return records


def plain(value):
    """Without the scope marks that mmengine adds on inheriting."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != '_scope_'}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def merged(base, extra):
    return {
        k: merged(base[k], extra[k])
        if isinstance(extra.get(k), dict) and 'type' not in extra[k]
        else extra.get(k, base.get(k))
        for k in {**base, **extra}
    }


def test_every_config_has_a_row_and_every_row_a_config():
    assert set(NAMES) == set(ROWS)


def test_the_readme_lists_every_config():
    text = (ROOT / 'README.md').read_text()
    assert [name for name in NAMES if f'`{name}`' not in text] == []


@pytest.mark.parametrize('name', [*NAMES, *(f'plain/{path.stem}' for path in CONFIGS.glob('plain/*.py'))])
def test_is_short(name):
    assert len((CONFIGS / f'{name}.py').read_text().splitlines()) <= 32


@pytest.mark.parametrize('name', NAMES)
def test_header_names_source_and_figures(name):
    row, text = ROWS[name], header(name)
    assert 'Source' in text
    for part in row['source'].split('; '):
        assert part in text
    if row['distilled_map']:
        assert f'Published: {row["base_map"]} -> {row["distilled_map"]}' in text
    else:
        assert 'Ours' in text or 'settings only' in text
        assert not re.search(r'Published: [\d.]+ ->', text)


@pytest.mark.parametrize('name', NAMES)
def test_settings(name):
    cfg, row = load(name), ROWS[name]
    assert cfg.model.type == 'kd_det.DistillDetector'
    assert cfg.train_cfg.max_epochs == int(row['epochs'])
    assert cfg.optim_wrapper.optimizer.type == (row['optimizer'] or 'SGD')
    assert cfg.optim_wrapper.optimizer.lr == float(row['lr'])
    assert cfg.train_dataloader.batch_size * int(row['gpus']) == int(row['batch']) == cfg.auto_scale_lr.base_batch_size
    clip = cfg.optim_wrapper.get('clip_grad')
    assert clip == (dict(max_norm=float(row['clip']), norm_type=2) if row['clip'] else None)
    assert list(cfg.model.get('inherit', [])) == row['inherit'].split()
    assert not cfg.get('find_unused_parameters', False)
    assert cfg.custom_imports == dict(imports=['kd_det'], allow_failed_imports=False)
    assert {'kd_det.TermScheduleHook', 'kd_det.StudentCheckpointHook'} <= {hook.type for hook in cfg.custom_hooks}


@pytest.mark.parametrize('name', NAMES)
def test_constants(name):
    """Each constant of the table is in the config, and each number of a loss in the config is in the table."""
    terms, row = load(name).model.distill, ROWS[name]
    table = dict(entry.split('=') for entry in row['constants'].split())
    for key, expected in table.items():
        value = terms
        for part in key.split('.'):
            value = value[int(part)] if isinstance(value, (list, tuple)) else value[part]
        assert (value == expected) if isinstance(value, str) else (value == float(expected)), key
    neutral = dict(T=1.0, pos_weight=1.0, reg_m=0.0)  # the paper's plain case
    for term, spec in terms.items():
        numbers = [f'{term}.loss.{k}' for k, v in spec.loss.items() if type(v) in (int, float) and neutral.get(k) != v]
        numbers += [f'{term}.weight'] if 'weight' in spec else []
        assert set(numbers) <= set(table)


@pytest.mark.parametrize('name', NAMES)
def test_teacher_and_student_are_mmdets(name, zoo):
    """Checkpoint URLs are those of mmdet's metafiles and belong to the teacher's config; mAP as recorded there."""
    cfg, row = load(name), ROWS[name]
    teacher = cfg.model.teacher
    if row['teacher']:
        assert teacher.config == f'mmdet::{row["teacher"]}'
        box_map, url = zoo[row['teacher']]
        assert teacher.checkpoint == url
        assert float(row['teacher_map']) == box_map
        assert f'{box_map:.1f}' in header(name)
    else:
        own = Path(teacher.config)
        assert own.is_file() and own.parent == CONFIGS / 'plain'
        epochs = Config.fromfile(own).train_cfg.max_epochs
        assert teacher.checkpoint == f'work_dirs/{own.stem}/epoch_{epochs}.pth'
        assert f'configs/plain/{own.name}' in header(name)
    if row['student']:
        expected = plain(Config.fromfile(_installed(row['student'])).model.to_dict())
        if name == 'fgd_fcos_r101_r50':
            expected = merged(expected, FCOS_EXTRAS)
        assert plain(cfg.model.student.to_dict()) == expected
    if row['base_map']:
        assert float(row['base_map']) == (OWN_BASELINES.get(name) or zoo[row['student']][0])


def test_urls_are_all_in_the_zoo(zoo):
    urls = {url for _, url in zoo.values()}
    for path in CONFIGS.rglob('*.py'):
        text = re.sub(r"'\s*\n\s*'", '', path.read_text())  # join strings that run over lines
        assert set(re.findall(r"https?://[^'\s]+\.pth", text)) <= urls, path


def test_students_of_the_real_sets_are_the_plain_ones():
    names = [n for n in NAMES if n.startswith('fgd_retina_r50_r18_')]
    assert len(names) == 4
    for name in names:
        alone = load('plain/retina_' + name.removeprefix('fgd_retina_r50_'))
        assert plain(load(name).model.student.to_dict()) == plain(alone.model.to_dict())
        assert load(name).train_dataloader == alone.train_dataloader


def _installed(relative):
    return Path(importlib.util.find_spec('mmdet').origin).parent / '.mim' / 'configs' / relative
