"""Logit methods in detectors: twenty steps of each in each family, and what a learnt temperature does to a student."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from steps import CONFIGS, fragment, run_method
from tiny_models import atss, batch, cascade, distiller, faster, fcos, gfl, pooled_faster, retina, ssd, total

from kd_det.adapters.rows import second_stage
from kd_det.losses.temperature import CurriculumTemperature
from kd_det.taps import Tap

DENSE = dict(retina=retina, fcos=fcos, gfl=gfl, atss=atss)
METHODS = ['kd', 'dist', 'dkd', 'ofa', 'ctkd', 'logit_std', 'qfl']
TWO_STAGE = [f'{name}_two_stage' for name in ('kd', 'dist', 'dkd', 'ofa', 'ctkd', 'logit_std')]
RUN = dict(boxes=(3, 3), lr=3e-3)


def of_stage(terms, student=None, teacher=None):
    """The terms of a two-stage fragment for stages of cascades; None for a single second stage."""
    for term in terms.values():
        for side, stage in (('student', student), ('teacher', teacher)):
            if stage is not None:
                term[side] = term[side].replace('bbox_head[', f'bbox_head.{stage}[')
        if student is not None and term['adapter']['type'] == 'kd_det.StageClassifier':
            term['adapter'] = dict(term['adapter'], cascade=True)
    return terms


@pytest.mark.parametrize('family', DENSE)
@pytest.mark.parametrize('name', METHODS)
def test_dense_heads(name, family):
    detector = DENSE[family]
    history = run_method(fragment(name), detector(), detector(base=16, channels=24), **RUN)
    assert history[0][f'loss_{name}'] > 0


@pytest.mark.parametrize('name', TWO_STAGE)
def test_second_stage(name):
    history = run_method(fragment(name), faster(), faster(base=16, channels=24), **RUN)
    assert all(value > 0 for value in history[0].values())


@pytest.mark.parametrize('name', TWO_STAGE)
def test_stages_of_cascades(name):
    """A cascade with a cascade, its first stage; a plain student with the second stage of a cascade."""
    run_method(of_stage(fragment(name), 0, 0), cascade(), cascade(base=16, channels=24), **RUN)
    run_method(of_stage(fragment(name), None, 1), faster(), cascade(base=16, channels=24), **RUN)


@pytest.mark.parametrize('name', ['kd_two_stage', 'dkd_two_stage', 'dist_two_stage'])
def test_a_later_stage_of_a_cascade(name):
    """Its own RoIs and labels: those of the stage, which are refined boxes of the one before."""
    terms = of_stage(fragment(name), 1, 1)
    assert second_stage(Tap.parse(next(iter(terms.values()))['student'])) == 'roi_head.bbox_head.1'
    run_method(terms, cascade(), cascade(base=16, channels=24), **RUN)


def test_soft_max_dense_heads_take_the_plain_form():
    """SSD: a soft-max over classes and background."""
    terms = fragment('kd')
    terms['kd']['loss']['use_sigmoid'] = False
    run_method(terms, ssd(), ssd(base=16), **RUN)


@pytest.mark.parametrize('select', ['confident', 'all'])
def test_other_rows(select):
    terms = fragment('kd', kd=dict(adapter=dict(type='kd_det.DenseRows', select=select, score_thr=0.001)))
    run_method(terms, retina(), retina(base=16), **RUN)


LEARNT = dict(type='kd_det.CurriculumTemperature', t_start=1.0, t_end=3.0)


@pytest.mark.parametrize('standardize', [False, True])
@pytest.mark.parametrize('learnt', [False, True])
@pytest.mark.parametrize(
    'name, temperature',
    [
        ('kd', 'T'),
        ('kd_two_stage', 'T'),
        ('dist', 'tau'),
        ('dkd_two_stage', 'temperature'),
        ('ofa_two_stage', 'temperature'),
        ('cwd', 'tau'),
        ('chen_anchor', 'T'),
        ('chen_two_stage', 'T'),
        ('ld', 'ld_T vlr_T kd_T'),
        ('sdd', 'temperature'),
    ],
)
def test_temperatures_combine_with_every_method(name, temperature, learnt, standardize):
    """Learnt or fixed, on logits as they are or as z-scores: one step with gradients, in its detector."""
    family = dict(ld=gfl, sdd=pooled_faster).get(name, faster if 'two_stage' in name else retina)
    terms = fragment(name)
    for term in terms.values():
        if 'Bounded' not in term['loss']['type']:
            term['loss'].update(
                standardize=standardize, **(dict.fromkeys(temperature.split(), LEARNT) if learnt else {})
            )
    model = distiller(family(), family(base=16), terms)
    losses = model.loss(*batch(model, boxes=(3, 3)))
    distilled = {k: v for k, v in losses.items() if k.startswith(tuple(f'loss_{term}' for term in terms))}
    sum(distilled.values()).backward()
    assert all(torch.isfinite(value) for value in distilled.values())
    found = [m for m in model.distill.modules() if isinstance(m, CurriculumTemperature)]
    assert bool(found) == learnt
    assert all(m.global_T.grad is not None and torch.isfinite(m.global_T.grad).all() for m in found)
    assert not learnt or any(m.global_T.grad.any() for m in found)


def test_the_config_of_ctkd_takes_its_temperature_out_of_the_weight_decay():
    cfg = Config.fromfile(CONFIGS / 'ctkd_faster_r101_r50.py')
    model = distiller(faster(), faster(), fragment('ctkd_two_stage'))
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    decay = {names[id(p)]: group['weight_decay'] for group in groups for p in group['params']}
    temperature = 'distill.ctkd.losses.0.T.global_T'
    assert decay.pop(temperature) == 0.0
    assert set(decay.values()) == {cfg.optim_wrapper.optimizer.weight_decay} and decay


def _gradients(terms):
    """The student's gradients of the distillation loss, and the model."""
    model = distiller(retina(), retina(base=16), terms)
    losses = model.loss(*batch(model, boxes=(3, 3)))
    (name,) = terms
    losses[f'loss_{name}'].backward()
    return {k: p.grad for k, p in model.student.named_parameters() if p.grad is not None}, losses, model


def test_a_learnt_temperature_leaves_the_students_gradient_as_it_is():
    """CTKD against plain KD at the temperature that it starts from."""
    learnt, losses, model = _gradients(fragment('ctkd'))
    (temperature,) = (m for m in model.distill.modules() if isinstance(m, CurriculumTemperature))
    terms = fragment('kd')
    terms['kd']['loss']['T'] = temperature().item()
    fixed, plain, _ = _gradients(terms)
    assert temperature().item() == pytest.approx(1 + 20 / (1 + 2.718281828459045**-1))
    torch.testing.assert_close(losses['loss_ctkd'], plain['loss_kd'])
    assert learnt.keys() == fixed.keys() and any(g.any() for g in fixed.values())
    for name, gradient in fixed.items():
        torch.testing.assert_close(learnt[name], gradient)


@pytest.mark.parametrize('epoch', [0, 1, 5, 10])
def test_a_learnt_temperature_climbs_the_loss(epoch):
    """Its gradient is lambda of the epoch times the slope of the loss, measured; a step against it raises the loss."""
    model = distiller(retina(), retina(base=16), fragment('ctkd'))
    loss, given = model.terms[0].losses[0], []
    handle = loss.register_forward_pre_hook(lambda *args: given.append(args[1:]), with_kwargs=True)
    model.loss(*batch(model, boxes=(3, 3)))
    handle.remove()
    rows, extras = given[0]
    rows, loss, temperature = [x.detach().double() for x in rows], loss.double(), loss.T
    temperature.set_epoch(epoch)

    loss(*rows, **extras).backward()
    gradient, eps, values = temperature.global_T.grad.item(), 1e-5, []
    with torch.no_grad():
        for sign in (1, -1):
            temperature.global_T += sign * eps
            values.append(loss(*rows, **extras).item())
            temperature.global_T -= sign * eps
        slope = (values[0] - values[1]) / (2 * eps)
        strength = {0: 0.0, 1: -0.0244717418524232, 5: -0.5, 10: -1.0}[epoch]
        assert slope != 0 and gradient == pytest.approx(strength * slope, rel=1e-5)
        before = loss(*rows, **extras).item()
        temperature.global_T -= 0.1 * temperature.global_T.grad
        after = loss(*rows, **extras).item()
    assert after == before if epoch == 0 else after > before


@pytest.mark.parametrize('classes', [1, 2])
@pytest.mark.parametrize('name', [*METHODS])
def test_one_and_two_classes_stay_finite(name, classes):
    """Some methods have nothing to say there, but none breaks a run."""
    model = distiller(retina(classes), retina(classes, base=16), fragment(name))
    images, samples = batch(model, boxes=(3, 3))
    for sample in samples:
        sample.gt_instances.labels %= classes
    loss = model.loss(images, samples)[f'loss_{name}']
    loss.backward()
    gradient = model.student.bbox_head.retina_cls.weight.grad
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    size = gradient.abs().max().item()
    if (name, classes) in (('dkd', 1), ('ofa', 1), ('logit_std', 1)):  # a soft-max over one class is constant
        assert size == 0
    elif (name, classes) != ('logit_std', 2):  # where only the epsilon of the z-scores is left to learn from
        assert size > 1e-7


def _process(rank, path):
    """Two steps of two processes, the second of which sees no boxes; DDP itself looks for parameters left out."""
    dist.init_process_group('gloo', init_method=f'file://{path}/meeting', rank=rank, world_size=2)
    terms = dict(fragment('ofa_two_stage'), **fragment('ctkd_two_stage'))
    model = distiller(faster(), faster(base=16), terms)
    next(m for m in model.modules() if isinstance(m, CurriculumTemperature)).set_epoch(10)
    parallel = MMDistributedDataParallel(model, find_unused_parameters=False, broadcast_buffers=False)
    optimiser = torch.optim.SGD(model.parameters(), 3e-2)
    for _ in range(2):
        images, samples = batch(model, boxes=(3, 2) if rank == 0 else (0, 0))
        optimiser.zero_grad()
        total(parallel(images, samples, mode='loss')).backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        optimiser.step()
    torch.save(dict(model.named_parameters()), f'{path}/{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_with_and_without_boxes_stay_alike(tmp_path):
    """Classifiers of stages and a learnt temperature, trained alike though one process has nothing for them."""
    mp.spawn(_process, (str(tmp_path),), nprocs=2)
    one, other = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    (temperature,) = (value for name, value in one.items() if name.endswith('global_T'))
    assert temperature.item() != 1.0
