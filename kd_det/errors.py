"""Errors that kd_det raises for wrong input, and the wording that they share.

Everything a user can get wrong in a config, a checkpoint or a data folder ends in a :class:`KDDetError`. The command
line tools print its text, alone, and exit with a status other than zero.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KDDetError(ValueError):
    """Base of all errors about the user's input. The text is complete by itself."""


class ConfigError(KDDetError):
    """A config key has a wrong value. The text names key, value, expectation and the nearest valid choice."""


class CheckpointError(KDDetError):
    """A checkpoint is missing, damaged, unsafe, or does not fit the network it is meant for."""


class DataError(KDDetError):
    """An annotation file or an image folder is missing or unreadable."""


def nearest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """The ``n`` choices nearest in spelling to ``name``, best first.

    Dotted paths are compared as a whole and by their last part, so that ``neck.fpn_conv.3`` finds
    ``neck.fpn_convs.3``.
    """
    choices = list(dict.fromkeys(choices))
    whole = difflib.get_close_matches(name, choices, n=n, cutoff=0.5)
    if len(whole) >= n:
        return whole
    last = name.rsplit('.', 1)[-1]
    by_last = [c for c in choices if last and difflib.SequenceMatcher(None, last, c.rsplit('.', 1)[-1]).ratio() > 0.7]
    prefix = [c for c in choices if c.startswith(name.split('.', 1)[0])]
    return list(dict.fromkeys(whole + by_last + sorted(prefix, key=len)))[:n]


def did_you_mean(name: str, choices: Iterable[str], n: int = 3) -> str:
    """A sentence such as ``Nearest: 'a', 'b'.``, or an empty string if nothing is near."""
    found = nearest(name, choices, n)
    return f' Nearest: {", ".join(map(repr, found))}.' if found else ''
