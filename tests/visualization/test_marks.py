"""Text between marks."""

from __future__ import annotations

import pytest

from kd_det.errors import DataError
from kd_det.visualization.marks import write_between_marks

BEGIN, END = '<!-- a:begin -->', '<!-- a:end -->'


def test_only_the_text_between_the_marks_changes(tmp_path):
    path = tmp_path / 'README.md'
    other = '<!-- b:begin -->\nkept\n<!-- b:end -->\n'
    path.write_text(f'# Ünit\n{BEGIN}\nold\n{END}\n{other}', encoding='utf-8')
    write_between_marks(path, BEGIN, END, '| a |\nnew')
    assert path.read_text(encoding='utf-8') == f'# Ünit\n{BEGIN}\n| a |\nnew\n{END}\n{other}'
    write_between_marks(path, BEGIN, END, 'again')
    assert path.read_text(encoding='utf-8') == f'# Ünit\n{BEGIN}\nagain\n{END}\n{other}'
    assert [p.name for p in tmp_path.iterdir()] == ['README.md']


@pytest.mark.parametrize('content', ['', BEGIN, END, f'{END}\n{BEGIN}', f'{BEGIN}{END}{BEGIN}', f'{BEGIN}{END}{END}'])
def test_marks_must_stand_once_and_in_order(tmp_path, content):
    path = tmp_path / 'README.md'
    path.write_text(content)
    with pytest.raises(DataError, match='once each, in this order'):
        write_between_marks(path, BEGIN, END, 'new')
    assert path.read_text() == content


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match='absent.md'):
        write_between_marks(tmp_path / 'absent.md', BEGIN, END, 'new')


def test_text_and_marks_that_would_break_the_next_writing_are_refused(tmp_path):
    path = tmp_path / 'README.md'
    path.write_text(f'{BEGIN}{END}')
    with pytest.raises(ValueError, match='holds a mark'):
        write_between_marks(path, BEGIN, END, f'new {END}')
    for begin, end in ((BEGIN, BEGIN), ('', END), ('x', 'xy')):
        with pytest.raises(ValueError, match='two different texts'):
            write_between_marks(path, begin, end, 'new')
    assert path.read_text() == f'{BEGIN}{END}'
