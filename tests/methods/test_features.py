"""Methods on the maps of the neck: each trains in each family, from a wider teacher of that family or of another."""

import pytest
from steps import fragment, run_method
from tiny_families import mask_rcnn, rtmdet, solo, yolox
from tiny_models import atss, faster, fcos, gfl, retina, ssd

ONE_STAGE = [retina, fcos, gfl, atss, ssd, solo, yolox, rtmdet]
TWO_STAGE = [faster, mask_rcnn]
METHODS = ['pkd', 'reviewkd', 'fitnet', 'at', 'vid', 'nst', 'ickd', 'fsp', 'fbkd']


def wide(family):
    """A teacher of twice the backbone's width and other widths at the neck."""
    return family(base=32 if family in (yolox, rtmdet) else 16, channels=24)


def shrunk(name):
    """The fragment, for necks of three levels: a slice ends by itself, a term per level does not."""
    terms = fragment(name)
    return {key: term for key, term in terms.items() if term['student'] != 'neck[3]'}


@pytest.mark.parametrize('family', ONE_STAGE)
@pytest.mark.parametrize('name', METHODS)
def test_one_stage(name, family):
    run_method(shrunk(name), family(), wide(family))


@pytest.mark.parametrize('family', TWO_STAGE)
@pytest.mark.parametrize('name', [*METHODS, 'pkd_two_stage', 'fbkd_two_stage'])
def test_two_stage(name, family):
    run_method(shrunk(name), family(), wide(family))


@pytest.mark.parametrize(
    'name, family',
    [
        ('fgd_two_stage', mask_rcnn), ('mgd_two_stage', mask_rcnn), ('fgd', solo), ('mgd', solo),
        ('fgd_yolox', yolox), ('mgd', yolox), ('cwd', yolox), ('fgd', rtmdet), ('mgd', rtmdet),
        ('cwd_norm', rtmdet), ('cwd_norm', yolox), ('cwd_norm', retina),
    ],
)  # fmt: skip
def test_flagships_with_masks_and_with_other_necks(name, family):
    run_method(fragment(name), family(), wide(family))


@pytest.mark.parametrize(
    'student, teacher', [(retina, faster), (faster, retina), (retina, fcos), (solo, mask_rcnn), (retina, rtmdet)]
)
def test_another_family_as_teacher(student, teacher):
    """PKD is made for it: it compares patterns, not sizes of activations."""
    run_method(shrunk('pkd'), student(), wide(teacher))
