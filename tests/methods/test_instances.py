"""Relations between instances: twenty steps in each detector family, and a memory that outlives the run."""

import pytest
from steps import fragment, run_method
from tiny_models import faster, fcos, retina

RELATIONS = ['sp', 'cc', 'rkd', 'pkt']


@pytest.mark.parametrize('family', [retina, fcos, faster])
@pytest.mark.parametrize('name', RELATIONS)
def test_relations(name, family):
    run_method(fragment(name), family(), family(base=16, channels=24), boxes=(5, 4))


@pytest.mark.parametrize('family', [retina, fcos, faster])
def test_crd(family):
    terms = fragment('crd')
    terms['crd']['loss'].update(n_data=20, nce_k=16)
    run_method(terms, family(), family(base=16, channels=24), boxes=(5, 4))
