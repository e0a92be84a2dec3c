"""Rows of logits and rows of embeddings: what the methods on them share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._functional import normaliser, shape_of


def logit_rows(
    name: str, student: Tensor, teacher: Tensor, **others: Tensor | None
) -> tuple[Tensor, Tensor, dict[str, Tensor | None]]:
    """Logits as rows, classes last.

    Args:
        name: The loss, for the message.
        student: Shape (N, K) or (B, K, H, W).
        teacher: The same shape.
        **others: One number per row, shape (N,), or (B, H, W) for dense logits; or None.

    Returns:
        Student and teacher, shape (N, K) with N = B H W for dense logits, and the others, shape (N,).

    Raises:
        ValueError: If shapes do not fit.
    """
    shapes = ', '.join(f'{key} {shape_of(value)}' for key, value in others.items() if value is not None)
    shapes = f'student {shape_of(student)}, teacher {shape_of(teacher)}' + (f', {shapes}' if shapes else '')
    if student.dim() not in (2, 4) or student.shape != teacher.shape:
        raise ValueError(
            f'{name}: student and teacher must be logits of equal shape (N, K) or (B, K, H, W), found {shapes}.'
        )
    rows = (student.shape[0], *student.shape[2:])
    flat: dict[str, Tensor | None] = {}
    for key, value in others.items():
        if value is not None and tuple(value.shape) not in (rows, (student[:, 0].numel(),)):
            raise ValueError(f'{name}: {key} must have shape {rows}, one number per row, found {shapes}.')
        flat[key] = None if value is None else value.reshape(-1)
    if student.dim() == 4:
        columns = student.shape[1]
        student, teacher = (x.movedim(1, -1).reshape(-1, columns) for x in (student, teacher))
    return student, teacher, flat


def counted_rows(
    labels: Tensor | None, label_weights: Tensor | None, like: Tensor, foreground_only: bool = False
) -> Tensor | None:
    """The weight of each row.

    Args:
        labels: Class of each row, shape (N,); rows whose label is no column count nothing.
        label_weights: Shape (N,).
        like: Logits, shape (N, K).
        foreground_only: Rows labelled with the last column count nothing either.

    Returns:
        Shape (N,), or None if all rows weigh 1.
    """
    weights = None if label_weights is None else label_weights.to(like.dtype)
    if labels is not None:
        counted = (labels >= 0) & (labels < like.shape[1] - int(foreground_only))
        weights = counted.to(like.dtype) if weights is None else weights * counted
    return weights


def row_mean(rows: Tensor, weights: Tensor | None, avg_factor: Tensor | float | None = None) -> Tensor:
    """Weighted sum over ``avg_factor``, or else over the number of rows with weight; at least 1.

    Args:
        rows: Shape (N,).
        weights: Shape (N,), or None for 1.
        avg_factor: Normaliser.
    """
    if weights is None:
        return rows.sum() / normaliser(avg_factor, rows.shape[0])
    return (rows * weights).sum() / normaliser(avg_factor, (weights > 0).sum())


def flat_rows(name: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings as rows of numbers.

    Args:
        name: The loss, for the message.
        student: Shape (N, ...).
        teacher: Shape (N, ...), trailing axes of any size.

    Returns:
        Shapes (N, D_s) and (N, D_t).

    Raises:
        ValueError: If the number of rows differs.
    """
    if student.dim() < 2 or teacher.dim() < 2 or student.shape[0] != teacher.shape[0]:
        raise ValueError(
            f'{name}: student and teacher must be (N, ...) with as many rows, found student {shape_of(student)}, '
            f'teacher {shape_of(teacher)}.'
        )
    rows = student.shape[0]
    return student.reshape(rows, math.prod(student.shape[1:])), teacher.reshape(rows, math.prod(teacher.shape[1:]))


def nothing(*tensors: Tensor) -> Tensor:
    """A zero that hangs on the graph of all tensors."""
    return torch.stack([(x * 0).sum() for x in tensors]).sum()


def unit(rows: Tensor, eps: float = 0.0) -> Tensor:
    """Rows over their L2 norm (plus ``eps``); a zero row stays zero and gets no gradient.

    Args:
        rows: Shape (..., D).
        eps: Added to the norm.
    """
    norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    empty = norm <= 1e-12
    return rows.masked_fill(empty, 0) / (norm.masked_fill(empty, 1) + eps)
