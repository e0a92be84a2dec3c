"""Generated text inside hand-written files: what stands between two marks is replaced."""

from __future__ import annotations

from pathlib import Path

from kd_det.checkpoint import atomic_path
from kd_det.errors import DataError

__all__ = ['write_between_marks']


def write_between_marks(path: str | Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marks of a file; the marks and the rest stay as they are.

    Args:
        path: The file, UTF-8. It is replaced as a whole, or not at all.
        begin: Mark before the text, such as ``<!-- bench:begin -->``.
        end: Mark behind it.
        text: What to put there, on lines of its own.

    Raises:
        DataError: The file cannot be read, or has not both marks once each, in this order.
        ValueError: The marks are empty or one holds the other, or the text holds one of them.
    """
    path = Path(path)
    if not begin or not end or begin in end or end in begin:
        raise ValueError(f'the marks must be two different texts, found {begin!r} and {end!r}')
    if begin in text or end in text:
        raise ValueError(f'the text holds a mark itself: {begin if begin in text else end!r}')
    try:
        old = path.read_text(encoding='utf-8')
    except OSError as error:
        raise DataError(f"'{path}' cannot be read ({error.strerror}).") from error
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise DataError(f"'{path}' must hold '{begin}' and '{end}' once each, in this order.")
    head, rest = old.split(begin)
    tail = rest.split(end)[1]
    with atomic_path(path) as temporary:
        temporary.write_text(f'{head}{begin}\n{text}\n{end}{tail}', encoding='utf-8')
