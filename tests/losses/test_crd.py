import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from kd_det.losses.crd import CRDLoss

TOL = {torch.float64: 1e-9, torch.float32: 1e-4}


def make(ref, dtype):
    hp = ref.hparams
    names = ('n_data', 'feat_dim', 'nce_k', 'nce_t', 'nce_m', 'eps')
    loss = CRDLoss(hp['s_dim'], hp['t_dim'], **{name: hp[name] for name in names})
    state = ref.under('param.')
    state.update({f'memory_v{i}': ref(f'step0.memory_v{i}_before') for i in (1, 2)})
    loss.to(dtype).load_state_dict(state, strict=False)
    return loss


@pytest.mark.parametrize('dtype', list(TOL))
def test_reference(reference, close, dtype):
    ref, tol = reference('crd'), TOL[dtype]
    loss = make(ref, dtype)
    for step in ('step0.', 'step1.'):
        for i in (1, 2):
            close(getattr(loss, f'memory_v{i}'), ref(f'{step}memory_v{i}_before'), tol, 'memory before')
        student, teacher = ref(f'{step}student', dtype).requires_grad_(), ref(f'{step}teacher', dtype)
        idx, contrast = ref(f'{step}idx'), ref(f'{step}contrast_idx')
        parts = copy.deepcopy(loss).parts(student, teacher, idx, contrast)
        for part, name in zip(parts, ('student', 'teacher')):
            close(part, ref(f'{step}loss.{name}_anchor'), tol, name)
        loss.zero_grad()
        value = loss(student, teacher, idx, contrast)
        value.backward()
        close(value, ref(f'{step}loss'), tol, 'loss')
        close(student.grad, ref(f'{step}grad_student'), tol, 'grad_student')
        for name, parameter in loss.named_parameters():
            close(parameter.grad, ref(f'{step}grad_param.{name}'), tol, name)
        for i in (1, 2):
            close(getattr(loss, f'memory_v{i}'), ref(f'{step}memory_v{i}_after'), tol, 'memory after')
            close(getattr(loss, f'Z_v{i}'), ref(f'{step}Z_v{i}'), tol, 'Z')


def small(n_data=10, **options):
    torch.manual_seed(0)
    return CRDLoss(4, 5, n_data, feat_dim=3, nce_k=6, **options).double()


def slow_part(anchor, memory, index, n_data):
    scores = [[torch.exp(memory[j] @ v / 0.07).item() for j in row] for v, row in zip(anchor, index.tolist())]
    Z = n_data * sum(map(sum, scores)) / (len(scores) * len(scores[0]))
    c = (index.shape[1] - 1) / n_data
    logs = torch.tensor([[v / Z if k == 0 else c for k, v in enumerate(row)] for row in scores], dtype=torch.float64)
    below = torch.tensor([[v / Z + c + 1e-7 for v in row] for row in scores], dtype=torch.float64)
    return -(logs / below).log().sum() / len(scores)


def test_equals_slow_formula_without_rows_of_no_instance():
    loss = small()
    student, teacher = torch.randn(4, 4).double(), torch.randn(4, 5).double()
    idx = torch.tensor([3, -1, 7, 0])
    index = loss.draw(idx)
    keep = [0, 2, 3]
    a, b = (
        torch.nn.functional.normalize(layer['linear'](x), dim=1).detach()[keep]
        for layer, x in ((loss.embed_s, student), (loss.embed_t, teacher))
    )
    expected = slow_part(a, loss.memory_v2, index[keep], 10) + slow_part(b, loss.memory_v1, index[keep], 10)
    before = loss.memory_v1.clone()
    torch.testing.assert_close(loss(student, teacher, idx, index), expected)
    changed = (loss.memory_v1 != before).any(1).nonzero().flatten().tolist()
    assert changed == [0, 3, 7]


def test_memories_and_scale():
    loss = small(nce_m=0.25)
    student, teacher, idx = torch.randn(4, 4).double(), torch.randn(4, 5).double(), torch.tensor([2, 5, 2, 9])
    loss.eval()
    state = copy.deepcopy(loss.state_dict())
    loss(student, teacher, idx)
    assert all(torch.equal(state[key], value) for key, value in loss.state_dict().items())  # eval changes nothing
    loss.train()
    loss(student, teacher, idx).backward()
    a = torch.nn.functional.normalize(loss.embed_s['linear'](student), dim=1).detach()
    for row, instance in ((1, 5), (2, 2), (3, 9)):  # instance 2 occurs twice: the last row counts
        moved = 0.25 * state['memory_v1'][instance] + 0.75 * a[row]
        torch.testing.assert_close(loss.memory_v1[instance], moved / moved.norm())
    Z = loss.Z_v1.clone()
    assert Z > 0 and not any(buffer.requires_grad for buffer in loss.buffers())
    loss(3 * student, teacher, idx)
    assert torch.equal(loss.Z_v1, Z)
    other = small()
    other.load_state_dict(loss.state_dict())
    index = loss.draw(idx)
    assert torch.equal(other(student, teacher, idx, index), loss(student, teacher, idx, index))


def test_draw_leaves_out_the_own_instance():
    idx = torch.arange(5).repeat(200)
    index = small(5).draw(idx)
    assert index.shape == (1000, 7) and torch.equal(index[:, 0], idx)
    assert not (index[:, 1:] == idx[:, None]).any() and set(index[idx == 4][:, 1:].unique().tolist()) == {0, 1, 2, 3}


def test_gradcheck():
    loss = small().eval()
    loss.Z_v1.fill_(50.0)
    loss.Z_v2.fill_(70.0)
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher, idx = torch.randn(3, 5, dtype=torch.float64), torch.tensor([1, 4, 8])
    index = loss.draw(idx)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, idx, index), (student,))


@pytest.mark.parametrize('idx', [[], [-1, -1], [1]])
def test_few_rows(idx):
    loss = small()
    student = torch.randn(len(idx), 4, dtype=torch.float64, requires_grad=True)
    value = loss(student, torch.randn(len(idx), 5, dtype=torch.float64), torch.tensor(idx, dtype=torch.long))
    value.backward()
    assert torch.isfinite(value) and all(torch.isfinite(p.grad).all() for p in loss.parameters())
    assert (value == 0) == (max(idx, default=-1) < 0) == (loss.Z_v1 == 0)


def _rows():
    torch.manual_seed(1)
    return torch.randn(4, 4).double(), torch.randn(4, 5).double(), torch.tensor([2, 5, 2, 9])


def _process(rank, path):
    dist.init_process_group('gloo', init_method=f'file://{path}/meeting', rank=rank, world_size=2)
    loss, own = small(), slice(0, 3) if rank == 0 else slice(3, 4)
    student, teacher, idx = _rows()
    index = (torch.arange(7) + idx[:, None]) % 10
    loss(student[own], teacher[own], idx[own], index[own])
    torch.save(dict(loss.named_buffers()), f'{path}/{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_agree(tmp_path):
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    loss = small()
    student, teacher, idx = _rows()
    loss(student, teacher, idx, (torch.arange(7) + idx[:, None]) % 10)
    for rank in range(2):
        for name, value in torch.load(tmp_path / f'{rank}.pth').items():
            torch.testing.assert_close(value, loss.get_buffer(name))


def test_errors():
    loss = small()
    with pytest.raises(ValueError, match=r'teacher \(N, 5\).*teacher \(2, 4\)'):
        loss(torch.zeros(2, 4), torch.zeros(2, 4), torch.zeros(2))
    with pytest.raises(ValueError, match=r'contrast_idx \(3, 7\)'):
        loss(torch.zeros(2, 4), torch.zeros(2, 5), torch.zeros(2), torch.zeros(3, 7))
    with pytest.raises(ValueError, match='n_data=1'):
        CRDLoss(4, 5, 1)
    with pytest.raises(ValueError, match='nce_m=2'):
        CRDLoss(4, 5, 10, nce_m=2)
