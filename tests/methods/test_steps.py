"""The helper of this folder finds what it is there to find; and methods that need no adapter of their own."""

import pytest
import torch
from steps import fragment, run_method
from tiny_models import cwd, fcos, gfl, retina

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


def test_a_loss_that_teaches_nothing_is_found():
    terms = dict(a=dict(cwd(), loss=dict(type='kd_det.TestNothing')))
    with pytest.raises(AssertionError):
        run_method(terms, retina(), retina())
