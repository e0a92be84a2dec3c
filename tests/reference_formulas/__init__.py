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

from . import _case as make
from . import (
    ab,
    at,
    cc,
    chen,
    crd,
    crosskd,
    cwd,
    dist,
    dkd,
    fbkd,
    fgd,
    fitnet,
    fsp,
    ft,
    ickd,
    kd,
    ld,
    mgd,
    nst,
    ofa,
    ofd,
    pkd,
    pkt,
    qfl,
    reviewkd,
    rkd,
    sdd,
    sp,
    vid,
)
from ._case import Call, Case, Inputs, Pair, Sizes

__all__ = ['CASES', 'Call', 'Case', 'Inputs', 'Pair', 'Sizes']


def _instances(sizes: Sizes) -> int:
    return max(3, sizes.instances)


def _places(sizes: Sizes) -> int:
    return 4 * sizes.instances


def _channels(sizes: Sizes) -> int:
    return sizes.channels


#: Name → case.
CASES: dict[str, Case] = {
    # ------------------------------------------------------------------------------------------- feature maps
    'fgd': Case(
        'kd_det.FGDLoss',
        make.boxed_maps,
        fgd.formula,
        dict(temp=0.5, alpha_fgd=1e-3, beta_fgd=5e-4, gamma_fgd=5e-4, lambda_fgd=5e-6),
        scales=('size', 'batch', 'boxes'),
        learns=True,
    ),
    'mgd': Case('kd_det.MGDLoss', make.masked_maps, mgd.formula, dict(alpha_mgd=2e-5, lambda_mgd=0.65), learns=True),
    'mgd_channel': Case(
        'kd_det.MGDLoss',
        make.masked_channels,
        mgd.formula,
        dict(alpha_mgd=2e-5, lambda_mgd=0.15, mask_type='channel'),
        learns=True,
    ),
    'cwd': Case('kd_det.CWDLoss', make.equal_maps, cwd.formula, dict(tau=1.0, loss_weight=10.0)),
    'cwd_padded': Case('kd_det.CWDLoss', make.padded_maps, cwd.formula, dict(tau=4.0, loss_weight=3.0)),
    'pkd': Case('kd_det.PKDLoss', make.equal_maps, pkd.formula, dict(loss_weight=10.0)),
    'nst': Case('kd_det.NSTLoss', make.free_maps, nst.formula, dict(loss_weight=50.0)),
    'fsp': Case('kd_det.FSPLoss', make.equal_pyramid, fsp.formula, dict(loss_weight=50.0)),
    'fitnet': Case('kd_det.FitNetLoss', make.learnt_maps, fitnet.formula, learns=True),
    'fitnet_bn': Case(
        'kd_det.FitNetLoss', make.learnt_maps, fitnet.formula, dict(regressor='conv_bn_relu'), learns=True
    ),
    'at': Case('kd_det.ATLoss', make.free_maps, at.formula, dict(p=2, loss_weight=1000.0)),
    'at_cubes': Case('kd_det.ATLoss', make.free_maps, at.formula, dict(p=3)),
    'vid': Case('kd_det.VIDLoss', make.learnt_maps, vid.formula, learns=True),
    'ickd': Case('kd_det.ICKDLoss', make.learnt_maps, ickd.formula, dict(loss_weight=2.5), learns=True),
    'fbkd': Case(
        'kd_det.FBKDLoss',
        make.learnt_maps,
        fbkd.formula,
        dict(reduction=2, sub_sample=True, maxpool_stride=4),
        learns=True,
    ),
    'reviewkd': Case(
        'kd_det.ReviewKDLoss', make.learnt_pyramid, reviewkd.formula, dict(mid_channel=_channels), learns=True
    ),
    'ft': Case('kd_det.FTLoss', make.learnt_maps, ft.formula, dict(loss_weight=500.0), learns=True),
    'ft_attention': Case('kd_det.FTLoss', make.learnt_maps, ft.formula, dict(form='attention'), learns=True),
    'ab': Case('kd_det.ABLoss', make.learnt_pyramid, ab.formula, learns=True),
    'ofd': Case('kd_det.OFDLoss', make.norms_and_pyramid, ofd.formula, learns=True),
    'ofd_measured': Case('kd_det.OFDLoss', make.learnt_pyramid, ofd.formula, dict(reduction='mean'), learns=True),
    # ------------------------------------------------------------------------------------ relations of instances
    'rkd': Case(
        'kd_det.RKDLoss',
        make.rows,
        rkd.formula,
        dict(w_d=25.0, w_a=50.0, max_angle_rows=_instances),
        scales=('instances',),
        maps=False,
    ),
    'rkd_angle': Case(
        'kd_det.RKDLoss',
        make.rows,
        rkd.formula,
        dict(w_d=0.0, w_a=50.0, max_angle_rows=_instances),
        scales=('instances',),
        maps=False,
    ),
    'sp': Case('kd_det.SPLoss', make.rows, sp.formula, dict(loss_weight=3000.0), scales=('instances',), maps=False),
    'cc': Case('kd_det.CCLoss', make.rows, cc.paper, dict(loss_weight=50.0), scales=('instances',), maps=False),
    'cc_listing': Case(
        'kd_det.CCLoss', make.rows, cc.listing, dict(variant='listing'), scales=('instances',), maps=False
    ),
    'cc_repdistiller': Case(
        'kd_det.CCLoss',
        make.learnt_rows,
        cc.repdistiller,
        dict(variant='repdistiller'),
        scales=('instances',),
        maps=False,
        learns=True,
    ),
    'pkt': Case('kd_det.PKTLoss', make.rows, pkt.formula, dict(loss_weight=30000.0), scales=('instances',), maps=False),
    'crd': Case(
        'kd_det.CRDLoss',
        make.remembered_rows,
        crd.formula,
        dict(n_data=_places),
        scales=('instances',),
        maps=False,
        learns=True,
    ),
    # ------------------------------------------------------------------------------------------------- logits
    'kd': Case('kd_det.KDLoss', make.logits, kd.formula, dict(T=4.0), scales=('instances',), maps=False),
    'kd_sigmoid': Case(
        'kd_det.KDLoss', make.logits, kd.sigmoid, dict(T=2.0, use_sigmoid=True), scales=('instances',), maps=False
    ),
    'kd_standardised': Case(
        'kd_det.KDLoss', make.logits, kd.formula, dict(T=2.0, standardize=True), scales=('instances',), maps=False
    ),
    'ctkd': Case(
        'kd_det.KDLoss',
        make.logits,
        kd.learnt,
        dict(T=dict(type='kd_det.CurriculumTemperature', t_start=1.0, t_end=20.0)),
        scales=('instances',),
        maps=False,
        learns=True,
    ),
    'dist': Case('kd_det.DISTLoss', make.logits, dist.formula, dict(tau=2.0), scales=('instances',), maps=False),
    'dkd': Case(
        'kd_det.DKDLoss',
        make.labelled_logits,
        dkd.formula,
        dict(alpha=1.0, beta=8.0, temperature=4.0),
        scales=('instances',),
        maps=False,
    ),
    'ofa': Case('kd_det.OFALoss', make.labelled_logits, ofa.formula, dict(eps=1.5), scales=('instances',), maps=False),
    'sdd': Case('kd_det.SDDLoss', make.regions, sdd.formula, scales=('instances',), maps=False),
    'qfl': Case('kd_det.QFLKDLoss', make.logits, qfl.formula, scales=('instances',), maps=False),
    # --------------------------------------------------------------------------------------- boxes and heads
    'soft_targets': Case(
        'kd_det.SoftTargetLoss', make.labelled_logits, chen.soft_targets, scales=('instances',), maps=False
    ),
    'bounded_boxes': Case(
        'kd_det.TeacherBoundedL2Loss', make.offsets, chen.bounded_boxes, scales=('instances',), maps=False
    ),
    'multibox': Case('kd_det.MultiBoxKDLoss', make.priors, chen.multibox, scales=('batch', 'instances'), maps=False),
    'ld': Case('kd_det.LDLoss', make.box_distributions, ld.formula, scales=('size', 'batch', 'instances'), maps=False),
    'crosskd': Case(
        'kd_det.CrossKDLoss',
        make.head_rows,
        crosskd.formula,
        dict(loss_dist=dict(type='kd_det.KDLoss', T=1.0), centerness_weight=1.0, normalize='scores'),
        scales=('instances',),
        maps=False,
    ),
}
