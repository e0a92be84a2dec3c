"""Taps: where to read in a network. A tap knows no loss."""

from .tap import Tap, describe, levels_of
from .tap_set import Enough, TapSet

__all__ = ['Enough', 'Tap', 'TapSet', 'describe', 'levels_of']
