"""Losses: one file per paper, one class per method. Tensors in, one scalar out, no detector known.

Every file of this folder is imported and its registered ``…Loss`` classes are offered here, so that a new method is one
new file.
"""

import importlib
import pkgutil

from kd_det.registry import MODELS

for _file in pkgutil.iter_modules(__path__, f'{__name__}.'):
    if not _file.name.rpartition('.')[2].startswith('_'):
        importlib.import_module(_file.name)

__all__ = sorted(
    name for name, found in MODELS.module_dict.items() if found.__module__.startswith(__name__) and name[-4:] == 'Loss'
)
globals().update({name: MODELS.module_dict[name] for name in __all__})
