"""Registries of scope ``kd_det``.

Each is a child of mmdet's registry of the same kind, so inside kd_det every mmdet name resolves too, and from outside
a type is written ``kd_det.FGDLoss``.
"""

from mmdet.registry import DATASETS as MMDET_DATASETS
from mmdet.registry import HOOKS as MMDET_HOOKS
from mmdet.registry import MODELS as MMDET_MODELS
from mmdet.registry import TRANSFORMS as MMDET_TRANSFORMS
from mmdet.registry import VISUALIZERS as MMDET_VISUALIZERS
from mmengine.registry import Registry

#: Detectors, adapters and losses.
MODELS = Registry('model', parent=MMDET_MODELS, scope='kd_det', locations=['kd_det'])
#: Hooks of the runner.
HOOKS = Registry('hook', parent=MMDET_HOOKS, scope='kd_det', locations=['kd_det.hooks'])
#: Data sets that mmdet does not have.
DATASETS = Registry('dataset', parent=MMDET_DATASETS, scope='kd_det', locations=['kd_det.datasets'])
#: Data transforms.
TRANSFORMS = Registry('transform', parent=MMDET_TRANSFORMS, scope='kd_det', locations=['kd_det.datasets'])
#: Visualisers.
VISUALIZERS = Registry('visualizer', parent=MMDET_VISUALIZERS, scope='kd_det', locations=['kd_det.visualization'])
