"""Decoded images kept in memory: one store for all processes that load a data set."""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log
from PIL import Image

from kd_det.errors import ConfigError
from kd_det.registry import TRANSFORMS

__all__ = ['LoadImageOnce', 'SharedArrays', 'decoded_size', 'loading_steps', 'size_text']

_ALIGN = 64
_HEAD = 64  # bytes in front of the records: where they end, how many they are, and what has been said


class SharedArrays:
    """Arrays by name, in memory that a process shares with those it forks later.

    What one of them puts in, all can read; workers that go leave theirs to those that come. The address space is
    reserved at once, memory is taken as arrays come in. Neither a lock nor half an array is left behind by a process
    that is killed. It is for processes, not for threads. What is copied or pickled (as for spawned processes) starts
    empty, with memory of its own.

    Args:
        max_bytes: Of arrays with their names; each starts at a multiple of 64 bytes.
        max_number: At most so many arrays.

    Raises:
        OSError: If the system does not grant so much address space.
    """

    def __init__(self, max_bytes: int, max_number: int) -> None:
        self.max_bytes, self.max_number = max_bytes, max_number
        self._file = os.fdopen(os.memfd_create('images'), 'r+b') if hasattr(os, 'memfd_create') else _temporary()
        os.ftruncate(self._file.fileno(), _HEAD + max_bytes)
        self._bytes = np.frombuffer(mmap.mmap(self._file.fileno(), _HEAD + max_bytes), np.uint8)
        self._state = self._bytes[:_HEAD].view(np.int64)
        self._state[0] = _HEAD
        self._known: dict[str, tuple[int, tuple[int, ...], np.dtype]] = {}
        self._seen = _HEAD

    def __getstate__(self) -> dict[str, int]:
        return dict(max_bytes=self.max_bytes, max_number=self.max_number)

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(**state)

    def __len__(self) -> int:
        """Number of arrays that all processes have put in."""
        return int(self._state[1])

    @property
    def used(self) -> int:
        """Bytes that they take."""
        return int(self._state[0]) - _HEAD

    def get(self, name: str) -> np.ndarray | None:
        """A copy of an array, or None."""
        if name not in self._known and self._seen < self._state[0]:
            with self._locked():
                self._catch_up()
        if name not in self._known:
            return None
        start, shape, dtype = self._known[name]
        stop = start + int(np.prod(shape)) * dtype.itemsize
        return self._bytes[start:stop].view(dtype).reshape(shape).copy()

    def put(self, name: str, array: np.ndarray) -> bool:
        """Keep a copy of an array; False if there is no room. A name that is known keeps what it has."""
        header = json.dumps([name, array.shape, array.dtype.str]).encode()
        with self._locked():
            self._catch_up()
            if name in self._known:
                return True
            here = int(self._state[0])
            start = _up(here + 16 + len(header))
            stop = _up(start + array.nbytes)
            if stop > len(self._bytes) or len(self) >= self.max_number:
                return False
            self._bytes[here : here + 16].view(np.int64)[:] = len(header), stop
            self._bytes[here + 16 : here + 16 + len(header)] = np.frombuffer(header, np.uint8)
            self._bytes[start : start + array.nbytes].view(array.dtype).reshape(array.shape)[...] = array
            self._state[0] = stop  # from here on it is there
            self._state[1] += 1
            self._catch_up()
        return True

    def first(self, event: int) -> bool:
        """Whether no process has asked this before, for one of the events 0 to 3."""
        if self._state[2 + event]:
            return False
        with self._locked():
            new = not self._state[2 + event]
            self._state[2 + event] = 1
        return new

    def _catch_up(self) -> None:
        """Note what other processes have put in; under the lock."""
        end = int(self._state[0])
        while self._seen < end:
            length, stop = (int(v) for v in self._bytes[self._seen : self._seen + 16].view(np.int64))
            text = self._bytes[self._seen + 16 : self._seen + 16 + length].tobytes()
            name, shape, dtype = json.loads(text)
            self._known[name] = (_up(self._seen + 16 + length), tuple(shape), np.dtype(dtype))
            self._seen = stop

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)  # given back by the system when a process dies
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


@TRANSFORMS.register_module()
class LoadImageOnce(LoadImageFromFile):
    """Read and decode each image once, and keep it in memory for all workers of the data loader.

    It takes the place of ``LoadImageFromFile`` and gives the same bytes. For sets that fit in memory: an image takes
    height × width × 3 bytes (four times as much with ``to_float32``). An image beyond a limit is read from its file
    each time. The first image says how many of its size fit, and
    :class:`~kd_det.hooks.DataWaitHook` what the whole set will take.

    Forked workers, which Linux has by default, share one store, persistent or not; spawned ones have a store each. So
    has each process of a distributed training, and each ``LoadImageOnce`` of a config. What comes out is a copy, which
    later transforms may change. A file that changes during a run is not read again.

    Args:
        max_images: At most so many images are kept.
        max_bytes: At most so many bytes.
        **kwargs: Those of ``mmcv.transforms.LoadImageFromFile``.

    Raises:
        ConfigError: If a limit is no positive integer, or the system does not grant ``max_bytes``.
    """

    def __init__(self, max_images: int = 2000, max_bytes: int = 4 * 2**30, **kwargs) -> None:
        super().__init__(**kwargs)
        for key, value in (('max_images', max_images), ('max_bytes', max_bytes)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f'LoadImageOnce.{key}: found {value!r}, expected a positive integer.')
        self.max_images, self.max_bytes = max_images, max_bytes
        try:
            self.images = SharedArrays(max_bytes, max_images)
        except (OSError, OverflowError, ValueError) as error:
            raise ConfigError(
                f'LoadImageOnce.max_bytes: found {max_bytes} ({size_text(max_bytes)}), which the system does not '
                f'grant ({error}); expected less.'
            ) from error

    def transform(self, results: dict) -> dict | None:
        """Fill ``img``, ``img_shape`` and ``ori_shape`` from the store, or from the file ``img_path``."""
        path = results['img_path']
        image = self.images.get(path)
        if image is None:
            results = super().transform(results)
            if results is not None:
                self._keep(path, results['img'])
            return results
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def announce(self, images: int, size: int) -> None:
        """Say what a data set will take, instead of what its first image takes.

        Args:
            images: How many it has.
            size: Their bytes, decoded.
        """
        self.images.first(_SAID_SIZE)
        rest = '' if size <= self.max_bytes and images <= self.max_images else '; the others are read each time'
        print_log(
            f'LoadImageOnce: {images} images, about {size_text(size)} decoded; keeps up to {self.max_images} images '
            f'and {size_text(self.max_bytes)}{rest}.',
            'current',
        )

    def _keep(self, path: str, image: np.ndarray) -> None:
        if self.images.put(path, image):
            if self.images.first(_SAID_SIZE):
                fit = min(self.max_images, self.max_bytes // _up(max(image.nbytes, 1)))
                print_log(
                    f'LoadImageOnce keeps decoded images; the first takes {size_text(image.nbytes)}, and {fit} of '
                    f'its size are within the limits, {size_text(self.max_bytes)} and {self.max_images} images.',
                    'current',
                )
        elif self.images.first(_SAID_FULL):
            print_log(
                f'LoadImageOnce is full: {len(self.images)} images, {size_text(self.images.used)}. The others are read '
                f'each time; max_images={self.max_images} and max_bytes={self.max_bytes} are the limits.',
                'current',
                logging.WARNING,
            )

    def __repr__(self) -> str:
        return f'{super().__repr__()[:-1]}, max_images={self.max_images}, max_bytes={self.max_bytes})'


_SAID_SIZE, _SAID_FULL = 0, 1


def loading_steps(dataset: Any) -> list[tuple[Any, LoadImageFromFile]]:
    """The data sets below all wrappers whose pipeline reads images from files, each with the step that does."""
    inside = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    if inside != [None]:
        return [found for one in inside for found in loading_steps(one)]
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    return [(dataset, step) for step in steps if isinstance(step, LoadImageFromFile)][:1]


def decoded_size(dataset: Any, step: LoadImageFromFile, samples: int = 16) -> int | None:
    """An estimate of the bytes that the images of a data set take, decoded.

    Args:
        dataset: Of mmengine's kind, with ``get_data_info``; no wrapper.
        step: What reads them.
        samples: How many images are looked at: ``height`` and ``width`` of the annotations, or the file's header.

    Returns:
        The bytes; None if they cannot be told, as for files that are not on a disk.
    """
    try:
        number = len(dataset)
        picks = sorted({round(i) for i in np.linspace(0, number - 1, min(samples, number))})
        infos = [dataset.get_data_info(index) for index in picks]
        areas = [info['height'] * info['width'] if 'height' in info else _area(info['img_path']) for info in infos]
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return None
    pixel = (1 if step.color_type.startswith('grayscale') else 3) * (4 if step.to_float32 else 1)
    return round(sum(areas) / max(1, len(areas)) * pixel * number)


def size_text(size: float) -> str:
    """Bytes in words, such as ``'1.5 GiB'``."""
    power = next((n for n in range(3) if size < 1024 ** (n + 1)), 3)
    value, unit = size / 1024**power, ('bytes', 'KiB', 'MiB', 'GiB')[power]
    return f'{value:.0f} {unit}' if power == 0 or value >= 100 else f'{value:.1f} {unit}'


def _area(path: str) -> int:
    with Image.open(path) as image:
        return image.width * image.height


def _temporary() -> Any:
    return tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the store


def _up(place: int) -> int:
    return -(-place // _ALIGN) * _ALIGN
