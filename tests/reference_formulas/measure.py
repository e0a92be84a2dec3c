"""What a call moves and what it holds, counted operation by operation, without a clock.

Both counts work on real tensors and on fake ones (``fake()``), which have shapes and no numbers: a formula that would
need a terabyte can be measured on any machine.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ._case import Call, Pair, each

# Allocate, and neither read nor write.
_EMPTY = {'aten::empty', 'aten::empty_like', 'aten::new_empty', 'aten::empty_strided', 'aten::new_empty_strided'}


def _nbytes(tensor: Tensor) -> int:
    """Bytes behind a tensor; an axis that is expanded counts once."""
    number = 1
    for size, stride in zip(tensor.shape, tensor.stride()):
        number *= size if stride or size < 2 else 1
    return number * tensor.element_size()


class Traffic(TorchDispatchMode):
    """Sums the sizes of what every operation reads and writes.

    Args:
        cache: Bytes that a processor is taken to keep at hand. 0: every operand of every operation counts. Else what
            lies in storages of that size or less does not count, and neither does a part of a larger one that is used
            again while less than ``cache`` bytes were used in between: what is left are reads and writes of main
            memory.
    """

    def __init__(self, cache: int = 0) -> None:
        super().__init__()
        self.cache, self.read, self.written, self.operations = cache, 0, 0, 0
        self._recent: OrderedDict[tuple, int] = OrderedDict()
        self._held: list[Any] = []  # so that no address is used twice

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.read + self.written

    def _moved(self, tensor: Tensor) -> int:
        size = _nbytes(tensor)
        if not self.cache:
            return size
        storage = tensor.untyped_storage()
        small = storage.nbytes() <= self.cache
        key = (storage._cdata, tensor.storage_offset(), size)
        hit = small or key in self._recent
        self._recent.pop(key, None)
        self._recent[key] = size
        while sum(self._recent.values()) > self.cache and len(self._recent) > 1:
            self._recent.popitem(last=False)
        return 0 if hit else size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view or func.name().split('.')[0] in _EMPTY or func.namespace not in ('aten', 'mkldnn'):
            return result
        self.operations += 1
        written = {x.untyped_storage()._cdata for x in tree_leaves(result) if isinstance(x, Tensor)}
        overwrites = func.name().split('.')[0] in ('aten::copy_', 'aten::fill_', 'aten::zero_') or 'out' in kwargs
        target = kwargs.get('out', args[0] if args else None) if overwrites else None
        for x in tree_leaves((args, kwargs)):
            if isinstance(x, Tensor) and x is not target:
                self.read += self._moved(x)
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.untyped_storage()._cdata in written:
                self.written += self._moved(x)
        return result


class Held(TorchDispatchMode):
    """Follows the bytes of all tensors that are made, and of those that are let go: ``peak`` is the most at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if not isinstance(x, Tensor):
                continue
            storage = x.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key in given or key in self._known:
                continue
            self._known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, key, size)
        return result

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@contextlib.contextmanager
def fake(pair: Pair) -> Iterator[Pair]:
    """The same two calls on tensors without numbers, for the time of the context."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    def one(call: Call, function: Callable) -> Call:
        call.module.load_state_dict({k: mode.from_tensor(v) for k, v in call.module.state_dict().items()}, assign=True)
        student, teacher, asked = (
            each(lambda x: mode.from_tensor(x.detach()), v) for v in (call.student, call.teacher, call.asked)
        )
        return Call(function, call.module, student, teacher, asked)

    with mode:
        yield Pair(one(pair.ours, pair.ours.function), one(pair.plain, pair.plain.function))


def traffic(function: Callable[[], Any], cache: int = 0) -> Traffic:
    """Count what a function moves; see :class:`Traffic`."""
    with Traffic(cache) as mode:
        function()
    return mode


def held(function: Callable[[], Any]) -> int:
    """The most bytes that a function holds at once beyond what was there; see :class:`Held`.

    Buffers inside an operation are not seen.
    """
    with Held() as mode:
        function()
    return mode.peak


def input_bytes(call: Call) -> int:
    """Bytes of student and teacher."""
    return sum(x.nbytes for x in tree_leaves((call.student, call.teacher)) if isinstance(x, Tensor))


def moves(call: Call, cache: int = 2**21) -> dict[str, float]:
    """Reads and writes of main memory of one step, forward and backward, in maps of the student's size.

    Returns:
        ``read``, ``written`` (multiples of the student's map or rows) and ``operations``.
    """
    call.step()  # what happens once
    found = traffic(call.step, cache)
    size = sum(x.nbytes for x in call.leaves)
    return dict(read=found.read / size, written=found.written / size, operations=found.operations)


__all__ = ['Held', 'Traffic', 'fake', 'held', 'input_bytes', 'moves', 'traffic']
