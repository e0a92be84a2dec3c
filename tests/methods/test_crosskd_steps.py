"""CrossKD in the detectors that it is published for."""

import copy

import pytest
from steps import fragment, run_method
from tiny_models import atss, fcos, gfl, retina

#: Fragment → detector, and what it compares.
FAMILIES = dict(
    crosskd=(retina, {'cls', 'reg'}),
    crosskd_gfl=(gfl, {'cls', 'dist'}),
    crosskd_fcos=(fcos, {'cls', 'reg'}),
    crosskd_atss=(atss, {'cls', 'reg', 'centerness'}),
)


def with_towers(cfg, stacked=4):
    """A tiny detector whose head has towers of the published length, so that the fragment fits as it is."""
    cfg['bbox_head']['stacked_convs'] = stacked
    return cfg


@pytest.mark.parametrize('name', FAMILIES)
@pytest.mark.parametrize('idx', [None, 1])
def test_trains(name, idx):
    """As published, and with features that cross over after the first of two convolutions."""
    detector, parts = FAMILIES[name]
    cfg = with_towers(detector(), 4 if idx is None else 2)
    terms = fragment(name)
    if idx is not None:
        terms['crosskd']['adapter']['idx'] = idx
    history = run_method(terms, cfg, copy.deepcopy(cfg), task=0.1)
    assert set(history[0]) == {f'loss_crosskd_{part}' for part in parts}


@pytest.mark.parametrize('name', FAMILIES)
def test_scores_of_the_classes_fall(name):
    """The part that is common to all detectors falls by itself, from a narrower student too."""
    detector, _ = FAMILIES[name]
    student = with_towers(detector(channels=8))
    terms = fragment(name)
    terms['crosskd']['loss'].update(loss_reg=None, loss_dist=None, centerness_weight=0.0)
    history = run_method(terms, student, with_towers(detector()))
    assert set(history[0]) == {'loss_crosskd_cls'}


def test_normalised_fcos():
    """A head whose numbers in training are not those in evaluation, for student and teacher."""
    cfg = with_towers(fcos())
    cfg['bbox_head'].update(norm_on_bbox=True, centerness_on_reg=True)
    run_method(fragment('crosskd_fcos'), cfg, copy.deepcopy(cfg))


def test_with_pkd():
    """CrossKD on the head and PKD on the neck, as its authors combine them."""
    terms = fragment('crosskd_gfl')
    terms['pkd'] = dict(student='neck', teacher='neck', loss=dict(type='kd_det.PKDLoss'), weight=6.0)
    cfg = with_towers(gfl())
    history = run_method(terms, cfg, copy.deepcopy(cfg))
    assert set(history[0]) == {'loss_crosskd_cls', 'loss_crosskd_dist', 'loss_pkd'}
    assert history[-1]['loss_pkd'] < history[0]['loss_pkd']
    assert history[-1]['loss_crosskd_cls'] < history[0]['loss_crosskd_cls']
