"""Tables as plain text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ['markdown_table', 'text_table']


def _check(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f'a row has {len(row)} cells, the header has {len(header)}: {list(row)}')


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the terminal: first column flush left, the others flush right.

    Args:
        header: Column names.
        rows: Cells, as many in each row as the header has.

    Raises:
        ValueError: A row has another number of cells.
    """
    _check(header, rows)
    widths = [max(len(str(cell)) for cell in column) for column in zip(header, *rows)]

    def line(row: Sequence[str]) -> str:
        cells = [str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(row, widths))]
        return '  '.join(cells).rstrip()

    return '\n'.join([line(header), '  '.join('-' * w for w in widths), *map(line, rows)])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same table in Markdown, with the first column flush left and the others flush right.

    Args:
        header: Column names.
        rows: Cells, as many in each row as the header has. A vertical bar in a cell is escaped.

    Raises:
        ValueError: A row has another number of cells.
    """
    _check(header, rows)

    def line(row: Sequence[str]) -> str:
        return '| ' + ' | '.join(str(c).replace('|', r'\|') for c in row) + ' |'

    return '\n'.join([line(header), '|' + '---|' + '---:|' * (len(header) - 1), *map(line, rows)])
