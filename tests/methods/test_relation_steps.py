"""Relations between instances: twenty steps in each detector family, and several processes."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from steps import fragment, run_method
from tiny_models import batch, distiller, faster, fcos, retina, total

from kd_det.losses import CRDLoss

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


@pytest.mark.parametrize('variant', ['repdistiller', 'listing'])
def test_other_forms_of_cc(variant):
    terms = fragment('cc')
    terms['cc']['loss']['variant'] = variant
    run_method(terms, retina(), retina(base=16, channels=24), boxes=(5, 4))


@pytest.mark.parametrize('family', [retina, fcos, faster])
def test_maps_of_all_kinds_of_boxes(family):
    adapter = dict(type='kd_det.Instances', output='maps', roi_size=3, jitter=0.1, background=4, detections=0.1)
    run_method(fragment('sp', sp=dict(adapter=adapter)), family(), family(base=16, channels=24), boxes=(3, 0))


def _process(rank, path):
    """Two steps of two processes, the second of which sees no boxes; DDP itself looks for parameters left out."""
    dist.init_process_group('gloo', init_method=f'file://{path}/meeting', rank=rank, world_size=2)
    terms = fragment('crd')
    terms['crd']['loss'].update(nce_k=16)
    relation = dict(terms['crd'], loss=dict(type='kd_det.CCLoss', variant='repdistiller', feat_dim=8), weight=1.0)
    model = distiller(retina(), retina(channels=24), dict(terms, cc=relation, **fragment('rkd')))
    torch.manual_seed(rank)  # random states of processes drift apart before the hook is called
    torch.rand(3)
    model.distill['crd'].losses[0].hold(20)
    parallel = MMDistributedDataParallel(model, find_unused_parameters=False)
    optimiser = torch.optim.SGD(model.parameters(), 1e-3)
    values = []
    for _ in range(2):
        images, samples = batch(model, boxes=(3, 2) if rank == 0 else (0, 0))
        losses = parallel(images, samples, mode='loss')
        optimiser.zero_grad()
        total(losses).backward()
        values.append({k: float(v.detach()) for k, v in losses.items() if k[5:] in model.distill})
        optimiser.step()
    torch.save(dict(state=model.state_dict(), values=values), f'{path}/{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_with_and_without_boxes_stay_alike(tmp_path):
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    one, other = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    assert one['state'].keys() == other['state'].keys()
    for name, value in one['state'].items():
        assert torch.equal(value, other['state'][name]), name
    start = CRDLoss(1, 1, 20).memory_v1
    moved = (one['state']['distill.crd.losses.0.memory_v1'] != start).any(1).nonzero().flatten().tolist()
    assert moved == [0, 1, 2, 3, 4]
    for values in one['values']:
        assert all(values[f'loss_{term}'] > 0 for term in ('crd', 'cc', 'rkd'))
    for values in other['values']:
        assert values['loss_crd'] == values['loss_cc'] == 0
