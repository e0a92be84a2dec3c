"""Take the student out of a distillation checkpoint: the result is a checkpoint that plain mmdet loads."""

import sys
from argparse import ArgumentParser
from pathlib import Path

from kd_det.checkpoint import export_student, foreign_names, load_checkpoint_safely, parse_config_text
from kd_det.engine import guarded, load_config
from kd_det.engine.arguments import add_options


def main(argv=None):
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='written by kd_det, by mmrazor, or by plain mmdet')
    parser.add_argument('out', metavar='OUT', help='the checkpoint to write')
    parser.add_argument(
        '--config', metavar='CONFIG', help='the config of the training (default: the one in CHECKPOINT)'
    )
    parser.add_argument(
        '--hash', action='store_true', help='add the first 8 digits of the SHA-256 of the file to its name'
    )
    parser.add_argument('--config-out', metavar='FILE.py', help="write the student's plain mmdet config, too")
    add_options(parser)
    args = parser.parse_args(argv)
    cfg = load_config(args.config, args.cfg_options) if args.config else None
    checkpoint = load_checkpoint_safely(args.checkpoint)
    written = export_student(
        checkpoint, args.out, cfg, source=args.checkpoint, add_hash=args.hash, config_out=args.config_out
    )
    print(written)
    text = Path(args.config_out).read_text(encoding='utf-8') if args.config_out else ''
    if names := foreign_names(parse_config_text(text)):
        print(f'{args.config_out} is not plain mmdet: it needs {", ".join(names)}.')


if __name__ == '__main__':
    sys.exit(guarded(main))
