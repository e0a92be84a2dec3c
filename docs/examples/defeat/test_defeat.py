import pytest
import torch
from steps import fragment, run_method
from tiny_models import fcos, retina

from kd_det.losses import DeFeatLoss


@pytest.mark.parametrize('family', [retina, fcos])
def test_it_trains(family):
    run_method(fragment('defeat'), family(), family(base=16, channels=24))


def test_by_hand():
    """A box over the left half of a map of 2 x 4 cells: floor and ceil take columns 0 to 2."""
    s, t = torch.randn(1, 3, 2, 4), torch.randn(1, 3, 2, 4)
    found = DeFeatLoss(2.0, 3.0)(s, t, [torch.tensor([[0.0, 0, 16, 16]])], (16, 32))
    error = (s - t).square().sum(1)[0]
    expected = 2.0 * error[:, :3].sum() / (2 * 6) + 3.0 * error[:, 3:].sum() / (2 * 2)
    assert found == pytest.approx(expected.item(), rel=1e-5)
