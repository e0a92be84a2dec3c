"""The file of results: what a kill leaves, what is replaced, what is refused."""

from __future__ import annotations

import json

import pytest

from kd_det.bench.ledger import Ledger, read_records
from kd_det.errors import DataError


def record(cell: str, digest: str = 'd', setting: str = 's', **more) -> dict:
    return dict(setting=setting, cell=cell, digest=digest, **more)


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_are_appended_and_found_by_cell_and_digest(tmp_path):
    path = tmp_path / 'new' / 'results.jsonl'
    ledger = Ledger(path)
    assert not path.exists() and ledger.records() == []
    ledger.add(record('a', mAP=0.1))
    first = path.read_bytes()
    ledger.add(record('b'))
    ledger.add(record('a', setting='t'))
    assert path.read_bytes().startswith(first)
    again = Ledger(path)
    assert again.records() == ledger.records() == read_records(path) == lines(path)
    assert [r['cell'] for r in again.records('s')] == ['a', 'b'] and len(again.records('t')) == 1
    assert again.find('s', 'a', 'd')['mAP'] == 0.1
    assert again.find('s', 'a', 'e') is None and again.find('t', 'b', 'd') is None


def test_a_cell_that_ran_again_replaces_its_record(tmp_path):
    path = tmp_path / 'results.jsonl'
    ledger = Ledger(path)
    for each in (record('a', 'old'), record('b'), record('a', 'new')):
        ledger.add(each)
    assert lines(path) == [record('b'), record('a', 'new')]
    assert ledger.find('s', 'a', 'old') is None and ledger.find('s', 'a', 'new')
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_lines_of_a_cell_the_last_counts(tmp_path):
    path = tmp_path / 'results.jsonl'
    path.write_text(''.join(json.dumps(r) + '\n' for r in (record('a', 'old'), record('b'), record('a', 'new'))))
    assert read_records(path) == [record('b'), record('a', 'new')]


@pytest.mark.parametrize('cut', [1, 10, 'newline'])
def test_a_line_that_a_kill_cut_off_is_left_out_and_later_removed(tmp_path, cut):
    path = tmp_path / 'results.jsonl'
    whole, last = json.dumps(record('a')) + '\n', json.dumps(record('b'))
    path.write_text(whole + (last if cut == 'newline' else last[:cut]))
    before, kept = path.read_bytes(), [record('a')] + [record('b')] * (cut == 'newline')
    assert read_records(path) == kept
    ledger = Ledger(path)
    assert ledger.records() == kept and path.read_bytes() == before  # reading changes nothing
    ledger.add(record('c'))
    assert lines(path) == [*kept, record('c')]


def test_a_file_that_others_add_to_keeps_their_records(tmp_path):
    path = tmp_path / 'results.jsonl'
    one, two = Ledger(path), Ledger(path)
    one.add(record('a', 'old'))
    two.add(record('b'))
    one.add(record('a', 'new'))  # rewrites the file
    assert {(r['cell'], r['digest']) for r in lines(path)} == {('a', 'new'), ('b', 'd')}


def test_a_broken_line_before_the_last_is_an_error_with_its_number(tmp_path):
    path = tmp_path / 'results.jsonl'
    good = json.dumps(record('a'))
    for bad in ('{"setting": "s", "ce', '{"setting": "s"}', '[1]', '"text"'):
        path.write_text(f'{good}\n\n{bad}\n{good}\n')
        with pytest.raises(DataError, match=r'line 3: found .* expected a JSON object with setting and cell'):
            Ledger(path)
        assert path.read_text() == f'{good}\n\n{bad}\n{good}\n'


def test_what_is_no_file_of_lines_is_refused(tmp_path):
    with pytest.raises(DataError, match='cannot be read'):
        read_records(tmp_path / 'absent.jsonl')
    with pytest.raises(DataError, match='cannot be read'):
        Ledger(tmp_path)
    (tmp_path / 'weights.pth').write_bytes(b'PK\x03\x04\xff\xfe')
    with pytest.raises(DataError, match='no UTF-8 text'):
        Ledger(tmp_path / 'weights.pth')
