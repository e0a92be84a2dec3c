"""kd_det: object-detection distillation on MMDetection 3.x. Importing it registers everything."""

from . import compat
from .version import __version__

compat.install()

from . import adapters, datasets, detectors, hooks, losses  # noqa: E402

compat.let_ssd_predict()

__all__ = ['__version__', 'adapters', 'compat', 'datasets', 'detectors', 'hooks', 'losses']
