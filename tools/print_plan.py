"""Print what a distillation config compares: terms x levels with shapes, strides and adapters. Loads no checkpoint."""

import sys
from argparse import ArgumentParser

from mmengine.registry import init_default_scope

import kd_det  # noqa: F401, registers everything
from kd_det.checkpoint import type_name
from kd_det.engine import check_model, guarded, load_config
from kd_det.engine.arguments import add_options
from kd_det.errors import ConfigError
from kd_det.registry import MODELS


def main(argv=None):
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('config', metavar='CONFIG', help='a distillation config')
    add_options(parser)
    args = parser.parse_args(argv)
    cfg = load_config(args.config, args.cfg_options)
    check_model(cfg)
    if type_name(cfg.model) != 'DistillDetector':
        raise ConfigError(
            f"model.type: {cfg.model.type!r}; expected 'kd_det.DistillDetector'. There is nothing to distil into a "
            'student.'
        )
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    print(MODELS.build(cfg.model).plan.table())


if __name__ == '__main__':
    sys.exit(guarded(main))
