"""SDD on second stages that pool before they classify."""

import pytest
from steps import fragment, run_method
from tiny_models import cascade, pooled_faster


def pooled_cascade(**options):
    cfg = cascade(**options)
    for head in cfg['roi_head']['bbox_head']:
        head.pop('fc_out_channels')
        head.update(type='BBoxHead', with_avg_pool=True)
    return cfg


def test_fragment():
    run_method(fragment('sdd'), pooled_faster(), pooled_faster(base=16, channels=24))


def test_cascade():
    taps = dict(student='roi_head.bbox_head.0@in[0]', teacher='roi_head.bbox_head.0@in[0]')
    run_method(fragment('sdd', sdd=taps), pooled_cascade(), pooled_cascade(base=16, channels=24))


@pytest.mark.parametrize('options', [dict(standardize=True), dict(foreground_only=True), dict(temperature=1.0)])
def test_variants(options):
    terms = fragment('sdd')
    terms['sdd']['loss'].update(options)
    run_method(terms, pooled_faster(), pooled_faster(base=16, channels=24))


def test_learnt_temperature():
    terms = fragment('sdd')
    terms['sdd']['loss']['temperature'] = dict(type='kd_det.CurriculumTemperature')
    run_method(terms, pooled_faster(), pooled_faster(base=16, channels=24))


def test_images_without_objects():
    """Every RoI is background then, and still compared."""
    run_method(fragment('sdd'), pooled_faster(), pooled_faster(), boxes=(0, 0))
