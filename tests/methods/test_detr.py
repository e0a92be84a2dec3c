"""DETR-type detectors: maps of the encoder, queries of the decoder."""

import pytest
from steps import fragment, run_method
from tiny_models import deformable, dino

FAMILIES = dict(
    deformable=(deformable(), deformable(base=16, channels=24)),
    two_stage=(
        deformable(channels=256, with_box_refine=True, as_two_stage=True),
        deformable(channels=256, base=16, with_box_refine=True, as_two_stage=True),
    ),
    dino=(dino(), dino(base=16)),
)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('name', ['fgd_encoder', 'kd_queries'])
def test_fragment(name, family):
    run_method(fragment(name), *FAMILIES[family])


@pytest.mark.parametrize('family', FAMILIES)
def test_other_losses_on_the_encoder(family):
    """CWD and MGD in the place of FGD, with one adapter."""
    terms = {
        name: dict(
            fragment(name)[name], **{k: fragment('fgd_encoder')['fgd'][k] for k in ('student', 'teacher', 'adapter')}
        )
        for name in ('cwd', 'mgd')
    }
    run_method(terms, *FAMILIES[family])


def test_inherited_queries_of_the_same_number():
    rows = dict(type='kd_det.QueryRows', match='index', topk=None, layers='all')
    terms = {name: dict(term, adapter={**term['adapter'], **rows}) for name, term in fragment('kd_queries').items()}
    student, teacher = deformable(layers=2), deformable(base=16, layers=2)
    run_method(terms, student, teacher, inherit=['query_embedding'])


def test_image_without_boxes():
    run_method({**fragment('fgd_encoder'), **fragment('kd_queries')}, *FAMILIES['dino'], boxes=(2, 0), task=1.0)
