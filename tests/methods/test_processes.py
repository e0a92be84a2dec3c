"""Two processes, one of which sees no boxes: heads' methods in DDP, without ``find_unused_parameters``."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from steps import fragment
from tiny_models import batch, distiller, gfl, total

TERMS = ['ld', 'crosskd_gfl', 'kd', 'fgd', 'reviewkd']


def _process(rank, path):
    dist.init_process_group('gloo', init_method=f'file://{path}/meeting', rank=rank, world_size=2)
    cfgs = gfl(), gfl(base=16, channels=24)
    for cfg in cfgs:
        cfg['bbox_head']['stacked_convs'] = 2
    terms = {}
    for name in TERMS:
        terms.update(fragment(name))
    for term in terms.values():
        if term.get('adapter', {}).get('type') == 'kd_det.CrossHead':
            term['adapter']['idx'] = 1
    model = distiller(*cfgs, terms)
    parallel = MMDistributedDataParallel(model, find_unused_parameters=False, broadcast_buffers=False)
    optimiser = torch.optim.SGD(model.parameters(), 1e-4)
    for _ in range(2):
        images, samples = batch(model, boxes=(3, 2) if rank == 0 else (0, 0))
        optimiser.zero_grad()
        losses = parallel(images, samples, mode='loss')
        assert {name for name in terms if any(k.startswith(f'loss_{name}') for k in losses)} == set(terms)
        total(losses).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)
        optimiser.step()
    torch.save(dict(model.named_parameters()), f'{path}/{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.slow
def test_heads_stay_alike(tmp_path):
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    one, other = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    assert one.keys() == other.keys() and any(name.startswith('distill.') for name in one)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
