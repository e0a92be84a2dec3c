"""The helper of this folder finds what it is there to find; and methods that need no adapter of their own."""

import pytest
import torch
from steps import fragment, run_method
from tiny_models import cwd, faster, fcos, gfl, retina, ssd

from kd_det.registry import MODELS


@MODELS.register_module(name='TestNothing')
class Nothing(torch.nn.Module):
    """A loss without a gradient: equal every step."""

    def forward(self, student, teacher):
        return (student.detach() - teacher).square().mean() + 0 * student.sum()


@pytest.mark.parametrize('family', [retina, fcos, gfl])
@pytest.mark.parametrize('name', ['fgd', 'mgd', 'cwd'])
def test_flagships(name, family):
    run_method(fragment(name), family(), family(base=16, channels=24))


@pytest.mark.parametrize('name', ['fgd', 'mgd'])
def test_flagships_in_two_stages(name):
    terms = fragment(f'{name}_two_stage', **{name: dict(student='neck[0:2]', teacher='neck[0:2]')})
    run_method(terms, faster(), faster(base=16, channels=24))


@pytest.mark.parametrize(
    'name, family', [('chen_anchor', retina), ('chen_two_stage', faster), ('ssdkd', ssd), ('cwd', ssd), ('fgd', ssd)]
)
def test_heads_of_chen(name, family):
    run_method(fragment(name), family(), family(base=16))


def test_a_loss_that_teaches_nothing_is_found():
    terms = dict(a=dict(cwd(), loss=dict(type='kd_det.TestNothing')))
    with pytest.raises(AssertionError):
        run_method(terms, retina(), retina())
