"""Reference numbers of the losses: what they are is told in the README beside the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[3] / 'shared' / 'reference'


class Reference:
    """One file of reference numbers, as tensors."""

    def __init__(self, path: Path) -> None:
        self.data = np.load(path)
        self.hparams = json.loads(str(self.data['hparams']))

    def __call__(self, key: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        value = torch.from_numpy(np.asarray(self.data[key]))
        return value.to(dtype) if value.is_floating_point() else value

    def __contains__(self, key: str) -> bool:
        return key in self.data.files

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """All float64 tensors whose key starts with ``prefix``, by the rest of their key."""
        return {key[len(prefix) :]: self(key) for key in self.data.files if key.startswith(prefix)}


@pytest.fixture(scope='session')
def reference():
    """Load a file of reference numbers by its name; skip where the folder is absent."""

    def load(name: str) -> Reference:
        path = FOLDER / f'{name}.npz'
        if not path.exists():
            pytest.skip(f'the reference numbers are not at {path}')
        return Reference(path)

    return load


@pytest.fixture(scope='session')
def close():
    """Compare two tensors relative to the largest entry of the second."""

    def compare(found: torch.Tensor, expected: torch.Tensor, tol: float, what: str = '') -> None:
        found, expected = found.detach().double(), expected.detach().double()
        assert found.shape == expected.shape, f'{what}: {tuple(found.shape)} for {tuple(expected.shape)}'
        scale = expected.abs().max().item() if expected.numel() else 0.0
        error = (found - expected).abs().max().item() if expected.numel() else 0.0
        assert error <= tol * max(scale, 1e-30), f'{what}: off by {error:.3g} at a scale of {scale:.3g}'

    return compare
