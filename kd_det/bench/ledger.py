"""The record of a benchmark: one JSON line per finished run."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from kd_det.checkpoint import atomic_path
from kd_det.errors import DataError

__all__ = ['Ledger', 'read_records']


def read_records(path: str | Path) -> list[dict[str, Any]]:
    """The records of a file, the last one of each cell.

    A last line that was cut off, as by a kill, is left out; :class:`Ledger` removes it.

    Raises:
        DataError: If a line before the last is no JSON object, or the file cannot be read.
    """
    return list(_read(Path(path))[0].values())


def _read(path: Path) -> tuple[dict[tuple[str, str], dict[str, Any]], bool]:
    """Records by setting and cell, and whether the file ends with a whole line."""
    try:
        lines = path.read_text(encoding='utf-8').split('\n')
    except OSError as error:
        raise DataError(f"results: '{path}' cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"results: '{path}' cannot be read; found no UTF-8 text, expected lines of JSON.") from error
    records, whole = {}, lines[-1] == ''
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            key = (record['setting'], record['cell'])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise DataError(
                f"results: '{path}', line {number}: found {line[:40]!r}, expected a JSON object with setting and cell."
            ) from error
        records.pop(key, None)
        records[key] = record
    return records, whole


class Ledger:
    """Records of finished runs in a file that any kill leaves readable.

    Reading changes nothing; a last line that was cut off is removed when the next record is added.

    Args:
        path: The file; made with the first record.

    Raises:
        DataError: If it exists and cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._records: dict[tuple[str, str], dict[str, Any]] = {}
        if self.path.exists():
            self._records, _ = _read(self.path)

    def records(self, setting: str | None = None) -> list[dict[str, Any]]:
        """All records, or those of one setting."""
        return [r for (name, _), r in self._records.items() if setting in (None, name)]

    def find(self, setting: str, cell: str, digest: str) -> dict[str, Any] | None:
        """The record of a cell, if it was run with equal inputs."""
        record = self._records.get((setting, cell))
        return record if record is not None and record.get('digest') == digest else None

    def add(self, record: dict[str, Any]) -> None:
        """Append a record; it is on the disk when this returns. Other processes may do the same."""
        key = (record['setting'], record['cell'])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            there, whole = _read(self.path) if self.path.exists() else ({}, True)
            self._records = {**self._records, **there}  # the file knows what others have added
            replaces = self._records.pop(key, None) is not None
            self._records[key] = record
            if replaces or not whole:
                self._rewrite()
                return
            with open(self.path, 'a', encoding='utf-8') as file:
                file.write(json.dumps(record) + '\n')
                file.flush()
                os.fsync(file.fileno())
        finally:
            os.close(folder)

    def _rewrite(self) -> None:
        with atomic_path(self.path) as path:
            path.write_text(''.join(json.dumps(r) + '\n' for r in self._records.values()), encoding='utf-8')
