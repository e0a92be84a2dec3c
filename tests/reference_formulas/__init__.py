"""Every loss of ``kd_det`` beside its plain formula, for tests and for ``tools/benchmark.py``.

The formulas are written as textbooks say them, with no thought of speed or memory: what is meant as a sum over pairs of
channels is one, boxes are painted one after the other. A registry ties each to its loss::

    from reference_formulas import CASES          # with tests/ on the path

    ours, plain = CASES['nst'].make(size=(25, 42), channels=64, batch=2)
    torch.testing.assert_close(ours(), plain())   # equal values, each on tensors of its own
    ours.step()                                   # forward and backward, to time or to measure

``CASES[name].scales`` tells which of size, batch, boxes and instances matter to a loss, ``CASES[name].maps`` whether it
compares feature maps.
"""

from __future__ import annotations

from . import cwd, fgd, fsp, mgd, nst, pkd, rkd, sp
from ._case import (
    Call,
    Case,
    Inputs,
    Pair,
    Sizes,
    boxed_maps,
    equal_maps,
    equal_pyramid,
    free_maps,
    masked_channels,
    masked_maps,
    padded_maps,
    rows,
)

__all__ = ['CASES', 'Call', 'Case', 'Inputs', 'Pair', 'Sizes']


def _instances(sizes: Sizes) -> int:
    return max(3, sizes.instances)


#: Name → case.
CASES: dict[str, Case] = {
    # ------------------------------------------------------------------------------------------- feature maps
    'fgd': Case(
        'kd_det.FGDLoss',
        boxed_maps,
        fgd.formula,
        dict(temp=0.5, alpha_fgd=1e-3, beta_fgd=5e-4, gamma_fgd=5e-4, lambda_fgd=5e-6),
        scales=('size', 'batch', 'boxes'),
        learns=True,
    ),
    'mgd': Case('kd_det.MGDLoss', masked_maps, mgd.formula, dict(alpha_mgd=2e-5, lambda_mgd=0.65), learns=True),
    'mgd_channel': Case(
        'kd_det.MGDLoss',
        masked_channels,
        mgd.formula,
        dict(alpha_mgd=2e-5, lambda_mgd=0.15, mask_type='channel'),
        learns=True,
    ),
    'cwd': Case('kd_det.CWDLoss', equal_maps, cwd.formula, dict(tau=1.0, loss_weight=10.0)),
    'cwd_padded': Case('kd_det.CWDLoss', padded_maps, cwd.formula, dict(tau=4.0, loss_weight=3.0)),
    'pkd': Case('kd_det.PKDLoss', equal_maps, pkd.formula, dict(loss_weight=10.0)),
    'nst': Case('kd_det.NSTLoss', free_maps, nst.formula, dict(loss_weight=50.0)),
    'fsp': Case('kd_det.FSPLoss', equal_pyramid, fsp.formula, dict(loss_weight=50.0)),
    # ------------------------------------------------------------------------------------ relations of instances
    'rkd': Case(
        'kd_det.RKDLoss',
        rows,
        rkd.formula,
        dict(w_d=25.0, w_a=50.0, max_angle_rows=_instances),
        scales=('instances',),
        maps=False,
    ),
    'rkd_angle': Case(
        'kd_det.RKDLoss',
        rows,
        rkd.formula,
        dict(w_d=0.0, w_a=50.0, max_angle_rows=_instances),
        scales=('instances',),
        maps=False,
    ),
    'sp': Case('kd_det.SPLoss', rows, sp.formula, dict(loss_weight=3000.0), scales=('instances',), maps=False),
}
