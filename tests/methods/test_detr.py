"""DETR-type detectors: maps of the encoder, queries of the decoder."""

import pytest
from mmengine.hub import get_config
from steps import fragment, run_method
from tiny_models import backbone, deformable, dino, distiller

from kd_det.errors import ConfigError

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


def shrunk(name, base=8):
    """A detector of mmdet's with a tiny backbone, one encoder and one or two decoder layers and twenty queries."""
    cfg = get_config(f'mmdet::{name}').model.to_dict()
    count = len(cfg['neck']['in_channels'])
    cfg['backbone'] = backbone(base, out_indices=tuple(range(4 - count, 4)))
    cfg['neck']['in_channels'] = [base * 2**i for i in range(4 - count, 4)]
    cfg['encoder']['num_layers'], cfg['decoder']['num_layers'], cfg['num_queries'] = 1, 1 + (count > 1), 20
    return cfg


@pytest.mark.parametrize(
    'name',
    [
        'detr/detr_r50_8xb2-150e_coco.py',
        'conditional_detr/conditional-detr_r50_8xb2-50e_coco.py',
        'dab_detr/dab-detr_r50_8xb2-50e_coco.py',
    ],
)
def test_the_other_detrs_of_mmdet(name):
    terms = {**fragment('fgd_encoder'), **fragment('kd_queries')}
    if name.startswith('detr/'):  # soft-max scores with a background column
        terms['query_cls']['loss'] = dict(type='kd_det.KDLoss')
    run_method(terms, shrunk(name), shrunk(name, 16))


def test_ddq_teaches_dino():
    """DDQ as a teacher; as a student it is refused: its dense queries of training cannot be told from the others."""
    ddq = shrunk('ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py', 16)
    run_method(fragment('kd_queries'), shrunk('dino/dino-4scale_r50_8xb2-12e_coco.py'), ddq, steps=8)
    with pytest.raises(ConfigError, match='distill.query_cls.student: DDQDETR trains with further dense queries'):
        distiller(ddq, ddq, fragment('kd_queries'))
