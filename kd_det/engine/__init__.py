"""What the command-line tools share: reading a config, checking it before anything is built, and running it."""

from kd_det.engine.config import apply_options, load_config
from kd_det.engine.preflight import check_data, check_model, check_test, check_train, check_work_dir
from kd_det.engine.run import guarded, prepare_test, prepare_train, run_test, run_train

__all__ = [
    'apply_options',
    'check_data',
    'check_model',
    'check_test',
    'check_train',
    'check_work_dir',
    'guarded',
    'load_config',
    'prepare_test',
    'prepare_train',
    'run_test',
    'run_train',
]
