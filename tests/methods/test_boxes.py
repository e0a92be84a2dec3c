"""Box distributions: LD on GFL-type heads."""

import pytest
from steps import fragment, run_method
from tiny_models import gfl


@pytest.mark.parametrize('boxes', [(2, 1), (2, 0)])
def test_ld(boxes):
    history = run_method(fragment('ld'), gfl(), gfl(base=16, channels=24), lr=3e-3, falls=0.9, boxes=boxes)
    assert set(history[0]) == {'loss_ld_ld', 'loss_ld_ld_vlr', 'loss_ld_kd'}
    for part in history[0]:  # each falls by itself
        assert 0 < history[-1][part] < history[0][part], part


def test_ld_beside_fgd_and_the_students_own_losses():
    terms = {**fragment('fgd'), **fragment('ld')}
    history = run_method(terms, gfl(), gfl(base=16, channels=24), task=1.0)
    assert len(history[0]) == 4
