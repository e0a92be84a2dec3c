"""Files of tensors in a folder that several processes may share, and that any of them may be killed in."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import secrets
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ['GIB', 'ReadingStore']

GIB = 2**30
_MAGIC = b'KDREAD1\n'
_HEAD = struct.Struct('<8sQQ')  # magic, length of the description, length of the whole file
_TAIL = struct.Struct('<I')  # CRC-32 of all before it
_ALIGN = 64
_DTYPES = {
    str(dtype).removeprefix('torch.'): dtype
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    + (torch.int8, torch.uint8, torch.bool)
}  # fmt: skip
#: Free disk space that is left to others, checkpoints above all, in bytes.
RESERVE = GIB
#: Unfinished files of a process that was killed are removed when they are so old, in seconds.
_STALE = 3600.0
_UNFINISHED = re.compile(r'(.+\.kdr|teacher\.json)\.[0-9]+\.[0-9a-f]+\.tmp')


class ReadingStore:
    """Tensors by name, one file each.

    A file is written under a temporary name and renamed when it is whole. It holds its length, its name and a
    checksum, and one that differs in any of them is not there: a damaged file is never returned. Nothing in it is
    executed or unpickled.

    Args:
        path: The folder; made when the first file is written.
        limit: Of the folder's size, in bytes. The folder is counted again each time that a share of the room left has
            been written, so that others who write there are noticed.

    Attributes:
        stopped: Why nothing is written any more; empty while files are written.
        total: Size of the folder in bytes: when it was last counted, and what this process has written since.
    """

    def __init__(self, path: str | Path, limit: float) -> None:
        self.path, self.limit = Path(path), limit
        self.stopped = ''
        self.total = 0
        self.damaged = 0
        self._processes = 1
        self._room = self._blind = 0.0  # bytes that may be written, and that without counting again

    @staticmethod
    def keeps(tensor: Tensor) -> bool:
        """Whether a tensor is of a kind that files hold: dense, of floating-point, integer or boolean type."""
        return tensor.layout is torch.strided and tensor.dtype in _DTYPES.values() and not tensor.is_quantized

    def count(self, processes: int = 1) -> int:
        """Count the folder's size, remove what killed processes left, and share what is left below the limit.

        Files of others are counted, and never removed.

        Args:
            processes: How many processes count and write alike; each takes its part of the room.

        Returns:
            The size in bytes.
        """
        self.total = 0
        for entry in _files(self.path):
            try:
                found = entry.stat()
                if _UNFINISHED.fullmatch(entry.name) and time.time() - found.st_mtime > _STALE:
                    os.unlink(entry.path)
                else:
                    self.total += found.st_size
            except OSError:  # renamed or removed by another process meanwhile
                continue
        self._processes = processes
        self._room = (self.limit - self.total) / processes
        self._blind = self._room / 8
        return self.total

    def free(self) -> int:
        """Free bytes on the disk of the folder, or of the nearest folder above it that exists."""
        folder = self.path.absolute()
        while not os.path.exists(folder) and folder != folder.parent:
            folder = folder.parent
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            return 0

    def file(self, name: str) -> Path:
        """Where the tensors of a name are, such as ``'a1b2/0f…'``."""
        folder, _, rest = name.rpartition('/')
        return self.path / folder / rest[:2] / f'{rest}.kdr'

    def has(self, name: str) -> bool:
        """Whether there is a file; it may be damaged."""
        return os.path.isfile(self.file(name))

    def get(self, name: str) -> tuple[dict[str, Any], list[Tensor]] | None:
        """What :meth:`put` wrote; None if there is nothing, or nothing that can be trusted."""
        try:
            with open(self.file(name), 'rb', buffering=0) as file:
                data = bytearray(os.fstat(file.fileno()).st_size)
                view, done = memoryview(data), 0
                while done < len(data) and (got := file.readinto(view[done:])):
                    done += got
        except OSError:
            return None
        found = _parse(data, name) if done == len(data) else None
        self.damaged += found is None
        return found

    def put(self, name: str, notes: dict[str, Any], tensors: list[Tensor]) -> bool:
        """Write tensors, as a whole or not at all.

        A full disk, the limit or any other error of the file system ends writing for good: :attr:`stopped` says why.

        Args:
            name: Their name.
            notes: What else to keep, in JSON's types.
            tensors: On the CPU.

        Returns:
            Whether they were written.
        """
        if self.stopped:
            return False
        parts, size = _build(name, notes, tensors)
        target = self.file(name)
        partial = target.with_name(f'{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp')
        try:
            if size > self._blind:
                self.count(self._processes)
            if size > self._room:
                self.stopped = f'the folder has reached its limit of {self.limit / GIB:.4g} GiB'
            elif self.free() - size < RESERVE:
                self.stopped = f'less than {RESERVE / GIB:.4g} GiB of the disk would stay free'
            if self.stopped:
                return False
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, 'xb', buffering=0) as file:
                for part in parts:
                    view = memoryview(part)
                    while view:
                        view = view[file.write(view) :]
            os.replace(partial, target)
        except BaseException as error:
            _remove(partial)
            if not isinstance(error, OSError):
                raise
            self.stopped = f'{error.strerror or error}'
            return False
        self.total += size
        self._room -= size
        self._blind -= size
        return True

    def write_text(self, name: str, text: str) -> None:
        """Leave a text for people beside the files, unless it is there or nothing can be written."""
        target = self.path / name
        partial = target.with_name(f'{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp')
        if self.stopped or os.path.exists(target):
            return
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text)
            os.replace(partial, target)
        except OSError as error:
            _remove(partial)
            self.stopped = f'{error.strerror or error}'


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _files(folder: str | Path) -> Iterator[os.DirEntry]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        else:
            yield entry


def _build(name: str, notes: dict[str, Any], tensors: list[Tensor]) -> tuple[list[Any], int]:
    """The parts of a file, in order, and their size."""
    specs, offset = [], 0
    for tensor in tensors:
        specs.append([str(tensor.dtype).removeprefix('torch.'), list(tensor.shape), offset])
        offset += -(-tensor.numel() * tensor.element_size() // _ALIGN) * _ALIGN
    text = json.dumps(dict(notes, name=name, tensors=specs)).encode()
    text += b' ' * (-(_HEAD.size + len(text)) % _ALIGN)
    size = _HEAD.size + len(text) + offset + _TAIL.size
    parts: list[Any] = [_HEAD.pack(_MAGIC, len(text), size), text]
    for tensor in tensors:
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        parts += [flat, bytes(-len(flat) % _ALIGN)]
    check = 0
    for part in parts:
        check = zlib.crc32(part, check)
    return [*parts, _TAIL.pack(check)], size


def _parse(data: bytearray, name: str) -> tuple[dict[str, Any], list[Tensor]] | None:
    """Notes and tensors of a file that is what it says; the tensors share its memory."""
    if len(data) < _HEAD.size + _TAIL.size:
        return None
    magic, length, size = _HEAD.unpack_from(data)
    view, end = memoryview(data), len(data) - _TAIL.size
    if magic != _MAGIC or size != len(data) or zlib.crc32(view[:end]) != _TAIL.unpack_from(data, end)[0]:
        return None
    try:
        notes = json.loads(bytes(view[_HEAD.size : _HEAD.size + length]))
        if notes.pop('name') != name:
            return None
        return notes, [_tensor(data, _HEAD.size + length, *spec) for spec in notes.pop('tensors')]
    except (ValueError, KeyError, TypeError, RuntimeError):  # whole, but no file of this kind
        return None


def _tensor(data: bytearray, start: int, kind: str, shape: list[int], offset: int) -> Tensor:
    number = math.prod(shape)
    if not number:
        return torch.empty(shape, dtype=_DTYPES[kind])
    return torch.frombuffer(data, dtype=_DTYPES[kind], count=number, offset=start + offset).reshape(shape)
