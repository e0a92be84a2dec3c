"""Test a detector; of a distillation config, the student alone. ``python tools/test.py -h`` lists the arguments."""

import sys

import kd_det  # noqa: F401, registers everything
from kd_det.engine import guarded, prepare_test, run_test
from kd_det.engine.arguments import parse_test


def main(argv=None):
    args = parse_test(argv)
    run_test(prepare_test(args), args.checkpoint, args.out)


if __name__ == '__main__':
    sys.exit(guarded(main))
