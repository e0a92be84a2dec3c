"""All taps of one network, recorded together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from kd_det.losses._functional import map_tensors

from .tap import Tap


class Enough(BaseException):
    """Raised from a hook when all that was waited for has been read, to leave a forward early."""


class TapSet:
    """Records the readings of several taps during one forward.

    Use it as a context manager around the forward, then :meth:`read`, then :meth:`clear`: readings hold the graph.

    Args:
        network: The teacher or the student.
        taps: The taps; those that differ in their index alone share one recorder.
        key: The config key to blame in errors, such as ``'student'``.
        guest: The network does not belong to the owner of this set (a teacher): deep copies of the owner share both.

    Raises:
        ConfigError: If a tap names no module or method of the network.
    """

    def __init__(self, network: nn.Module, taps: Iterable[Tap], key: str = 'tap', guest: bool = False) -> None:
        from .recorders import InputsRecorder, MethodRecorder, OutputsRecorder, PreActivationRecorder

        kinds = dict(output=OutputsRecorder, input=InputsRecorder, pre=PreActivationRecorder)
        self.key, self.guest = key, guest
        self.recorders: dict[tuple[str, str, str], Any] = {}
        self._wait_for: dict[tuple[str, str, str], int] | None = None
        self._versions: list[tuple[Any, Any, list[int]]] | None = None
        for tap in taps:
            if tap.source in self.recorders:
                continue
            module = tap.module(network, key)
            if tap.kind == 'method':
                recorder = MethodRecorder(tap.text, module, tap.method, self._told)
            else:
                recorder = kinds[tap.kind](tap.text, module, self._told)
            recorder.initialize(network)
            self.recorders[tap.source] = recorder

    def __deepcopy__(self, memo: dict[int, Any]) -> TapSet:
        if self.guest:
            return self
        twin = memo[id(self)] = object.__new__(type(self))
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def __bool__(self) -> bool:
        return bool(self.recorders)

    def __enter__(self) -> TapSet:
        for recorder in self.recorders.values():
            recorder.__enter__()
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> bool:
        for recorder in self.recorders.values():
            recorder.__exit__(exc_type, exc_value, traceback)
        return exc_type is Enough

    def counts(self) -> dict[tuple[str, str, str], int]:
        """How often each source has run since the records were cleared."""
        return {source: len(recorder.data_buffer) for source, recorder in self.recorders.items()}

    def stop_at(self, counts: dict[tuple[str, str, str], int] | None) -> None:
        """Leave the forward as soon as each source has run so often; None runs it to its end."""
        self._wait_for = counts

    def _told(self) -> None:
        if self._versions is not None:
            from .recorders import versions

            for recorder in self.recorders.values():
                seen = sum(known is recorder for known, _, _ in self._versions)
                for record in recorder.data_buffer[seen:]:
                    self._versions.append((recorder, record, versions(record)))
        if self._wait_for is not None and all(
            len(self.recorders[source].data_buffer) >= count for source, count in self._wait_for.items()
        ):
            raise Enough

    def watch_versions(self) -> None:
        """Begin to notice which readings the network overwrites in place (an in-place ReLU behind a tap)."""
        self._versions = []

    def copy_overwritten(self) -> list[str]:
        """Let recorders copy what was overwritten since :meth:`watch_versions`; returns their sources."""
        from .recorders import versions

        changed = []
        for recorder, record, before in self._versions or []:
            if versions(record) != before and not recorder.copies:
                recorder.copies = True
                changed.append(recorder.source)
        self._versions = None
        return changed

    def read(self, tap: Tap, key: str | None = None) -> Any:
        """The reading of ``tap`` in the last forward.

        Raises:
            ConfigError: If the module did not run, or the tap's index does not exist.
        """
        return tap.pick(self.recorders[tap.source].data_buffer, key or self.key)

    def convert(self, function: Callable[[Tensor], Tensor]) -> None:
        """Replace every tensor that was read by ``function`` of it; one that several taps read stays one."""
        made: dict[int, tuple[Tensor, Tensor]] = {}

        def once(tensor: Tensor) -> Tensor:
            if id(tensor) not in made:
                made[id(tensor)] = (tensor, function(tensor))
            return made[id(tensor)][1]

        for recorder in self.recorders.values():
            recorder.data_buffer[:] = [map_tensors(once, record) for record in recorder.data_buffer]

    def tensors(self) -> list[Tensor]:
        """Every floating-point tensor in the records, in order."""
        found: list[Tensor] = []
        for recorder in self.recorders.values():
            for record in recorder.data_buffer:
                map_tensors(lambda t: found.append(t) or t, record)
        return [tensor for tensor in found if tensor.is_floating_point()]

    def clear(self) -> None:
        """Forget all records, so that nothing of the last step's graph is kept."""
        for recorder in self.recorders.values():
            recorder.reset_data_buffer()
        if self._versions is not None:
            self._versions = []  # of a run that did not reach all taps; the next one is watched anew
