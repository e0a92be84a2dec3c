# CRD on instances: each ground-truth box near the teacher's view of it, far from those of other boxes. Constants: the
# authors' (RepDistiller; paper arXiv 1910.10699). Ours: the weight, for 0.8 (see docs/methods.md); 4096 negatives for
# 16384, and 64 boxes a step at most: both bound the memory. Needs dict(type='kd_det.InstanceIdHook') in custom_hooks,
# which also finds n_data.
distill = dict(
    crd=dict(
        student='neck[0:4]',
        teacher='neck[0:4]',
        adapter=dict(type='kd_det.Instances', max_rows=64),
        loss=dict(type='kd_det.CRDLoss', feat_dim=128, nce_k=4096, nce_t=0.07, nce_m=0.5),
        weight=0.1,
    )
)
