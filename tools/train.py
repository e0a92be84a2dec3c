"""Train a detector, alone or distilled. ``python tools/train.py -h`` lists the arguments."""

import sys

import kd_det  # noqa: F401, registers everything
from kd_det.engine import guarded, prepare_train, run_train
from kd_det.engine.arguments import parse_train


def main(argv=None):
    run_train(prepare_train(parse_train(argv)))


if __name__ == '__main__':
    sys.exit(guarded(main))
