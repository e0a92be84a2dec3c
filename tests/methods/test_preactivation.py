"""AB and OFD on maps before a ReLU: backbone stages and head towers."""

import pytest
import torch
from steps import fragment, run_method
from tiny_models import batch, distiller, faster, fcos, gfl, retina

FAMILIES = [retina, fcos, gfl, faster]
TOWER = 'bbox_head.cls_convs.0@pre'


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('name', ['ab', 'ofd'])
def test_fragment(name, family):
    """The published taps and constants, with a teacher twice as wide."""
    run_method(fragment(name), family(), family(base=16, channels=24))


@pytest.mark.parametrize('name', ['ab', 'ofd'])
def test_same_width(name):
    run_method(fragment(name), retina(), retina())


@pytest.mark.parametrize('name', ['ab', 'ofd'])
@pytest.mark.parametrize('family', [retina, fcos, gfl])
def test_towers(name, family):
    """A tower of a dense head is a list of levels by itself; here without norms, so that OFD measures its margins."""
    terms = fragment(name, **{name: dict(student=TOWER, teacher=TOWER)})
    run_method(terms, family(), family(base=16, channels=24))


def test_running_margins_train():
    terms = fragment('ofd', ofd=dict(student=TOWER, teacher=TOWER))
    terms['ofd']['loss']['margin_momentum'] = 0.1
    run_method(terms, fcos(), fcos(channels=24))


def test_ab_counts_in_its_initial_stage_only():
    """The fragment's schedule: two epochs, then nothing, and every parameter of the term still has a zero gradient."""
    model = distiller(retina(), retina(channels=24, base=16), fragment('ab'))
    term = model.distill['ab']
    images, samples = batch(model)
    losses = model.loss(images, samples)
    assert losses['loss_ab'] > 0
    assert term.schedule.factor(0, 1.99) == 1 and term.schedule.factor(0, 2.0) == 0
    term.factor = term.schedule.factor(0, 2.0)
    later = model.loss(images, samples)['loss_ab']
    later.backward()
    assert later == 0 and all(p.grad is not None and not p.grad.any() for p in term.parameters())


def test_signs_follow_the_teacher():
    """What AB is for: after a few steps more of the student's neurons fire where the teacher's do."""
    torch.manual_seed(0)
    model = distiller(retina(), retina(), fragment('ab'))
    images, samples = batch(model)
    seen = []
    loss = model.distill['ab'].losses[0]
    loss.register_forward_pre_hook(lambda module, args: seen.append(args))
    optimiser = torch.optim.Adam(model.student.parameters(), 1e-2)

    def agreement():
        ours, theirs = seen[-1]
        return sum(float(((s > 0) == (t > 0)).float().mean()) for s, t in zip(ours, theirs)) / len(ours)

    shares = []
    for _ in range(15):
        optimiser.zero_grad()
        model.loss(images, samples)['loss_ab'].backward()
        optimiser.step()
        shares.append(agreement())
    assert shares[-1] > shares[0] + 0.1


@pytest.mark.parametrize('name', ['ab', 'ofd'])
def test_deeper_stages_teach_shallower_ones(name):
    """Self-distillation: no other network; widths and sizes differ, and OFD reads the norms of the student itself."""
    taps = dict(student=['backbone.layer2@pre', 'backbone.layer3@pre'], teacher=['student:backbone.layer4@pre'] * 2)
    terms = fragment(name, **{name: taps})
    run_method(terms, retina(), None)
