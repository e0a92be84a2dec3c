"""Twenty steps of a method in a detector of a few thousand weights: what every test of this folder is made of."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from tiny_models import batch, distiller, total

CONFIGS = Path(__file__).parents[2] / 'configs'


def fragment(name: str, **changes: dict[str, Any]) -> dict[str, Any]:
    """The terms of ``configs/_base_/distill/<name>.py``, with keys of single terms changed.

    Args:
        name: The fragment.
        changes: Term → keys that differ in a tiny detector, such as ``fgd=dict(student='neck[0:2]')``.
    """
    terms = Config.fromfile(CONFIGS / '_base_' / 'distill' / f'{name}.py').distill.to_dict()
    for term, keys in changes.items():
        terms[term].update(keys)
    return terms


def run_method(
    terms: dict[str, Any],
    student: dict[str, Any],
    teacher: dict[str, Any] | None,
    steps: int = 20,
    lr: float = 1e-3,
    task: float = 0.0,
    falls: float = 1.0,
    boxes: tuple[int, ...] = (2, 1),
    before: Callable[[Any], None] | None = None,
    **options: Any,
) -> list[dict[str, float]]:
    """Take ``steps`` Adam steps on one batch with random weights, and check what every method must do.

    Every loss is finite. The distillation loss alone gives each network part that the student's taps read a gradient,
    and the teacher none; the teacher does not change. Over the steps the distillation loss falls.

    Args:
        terms: The terms of ``model.distill``.
        student: The student's config.
        teacher: The teacher's config; None for self-distillation.
        steps: Number of steps.
        lr: Adam's learning rate.
        task: Factor of the student's own losses in what is minimised: 0, the terms alone.
        falls: The mean of the last three steps must be below this share of the first three's mean.
        boxes: Objects per image.
        before: Called with the model before each step.
        options: More options of the wrapper.

    Returns:
        The losses of each step by name.
    """
    model = distiller(copy.deepcopy(student), copy.deepcopy(teacher), copy.deepcopy(terms), **options)
    images, samples = batch(model, boxes=boxes)
    teachers = {name: one.model for name, one in model.teachers.items()}
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)
    history: list[dict[str, float]] = []
    for step in range(steps):
        if before is not None:
            before(model)
        torch.manual_seed(step % 2)  # masks and samples drawn at random differ little from step to step
        losses = model.loss(images, copy.deepcopy(samples))
        if step == 0:  # the first step makes them fast
            frozen = {name: [p.clone() for p in net.state_dict().values()] for name, net in teachers.items()}
        distilled = {k: v for k, v in losses.items() if any(_belongs(k, term) for term in terms)}
        own = {k: v for k, v in losses.items() if k not in distilled}
        assert {term for term in terms for k in distilled if _belongs(k, term)} == set(terms)
        objective = total(distilled) + task * total(own)
        optimiser.zero_grad()
        objective.backward()
        history.append({k: float(total({k: v})) for k, v in distilled.items()})
        assert all(math.isfinite(value) for value in history[-1].values()), history[-1]
        assert math.isfinite(float(total(own)))
        if step == 0:
            _check_gradients(model)
        assert all(p.grad is None for net in teachers.values() for p in net.parameters())
        optimiser.step()
    for name, net in teachers.items():
        assert all(torch.equal(a, b) for a, b in zip(frozen[name], net.state_dict().values(), strict=True))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    sums = [sum(entry.values()) for entry in history]
    first, last = sum(sums[:3]) / 3, sum(sums[-3:]) / 3
    assert last < first * falls if first > 0 else last < first, f'{first} → {last}'
    return history


def _belongs(name: str, term: str) -> bool:
    return name == f'loss_{term}' or name.startswith(f'loss_{term}_')


def _check_gradients(model: Any) -> None:
    """The distillation loss reaches the weights above each tap of the student."""
    for term in model.terms:
        reached = [p for p in model.student.parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)]
        assert reached, term.name
        for tap in term.student_taps:
            module = tap.module(model.student)
            own = [p for p in module.parameters() if p.requires_grad]
            touched = any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in own)
            assert touched or not own or tap.kind in ('method', 'input'), (term.name, tap.text)
