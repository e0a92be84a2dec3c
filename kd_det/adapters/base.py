"""What an adapter is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from kd_det.taps import Tap


class Guest:
    """A network that an adapter uses and does not own: in none of its parameters, state dicts and checkpoints.

    A deep copy of student and adapter together (EMA) uses the student's copy; a teacher is shared.

    Attributes:
        module: The network.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: dict[int, Any]) -> Guest:
        copied = memo.get(id(self.module))
        return self if copied is None else Guest(copied)


@dataclass
class Pair:
    """Two readings that a loss can compare: one level, or all levels for a loss that asks for lists.

    Attributes:
        student: What the loss gets first.
        teacher: What the loss gets second.
        extras: What the loss may ask for by argument name, beside what the samples give.
    """

    student: Any
    teacher: Any
    extras: dict[str, Any] = field(default_factory=dict)


class Adapter(nn.Module):
    """Turns a student reading and a teacher reading into :class:`Pair` objects, one per level.

    :meth:`prepare` is called once, by the plan, with readings of a dry forward: there an adapter makes its layers and
    refuses what it cannot make comparable. Its parameters are trained with the student and never part of it.
    """

    #: How :meth:`prepare` treated each pair, in words, for the plan.
    notes: list[str]
    #: The term's tap into the student; set by the term.
    student_tap: Tap | None = None
    #: The term's taps into the teacher, one or one for each level; set by the term.
    teacher_taps: Sequence[Tap] = ()
    #: Whether it runs parts of the teacher by itself, which then may not be let go. Unless it is known not to.
    runs_teacher: bool = True
    #: The two whole detectors; set by :meth:`bind`.
    student_net: Guest
    teacher_net: Guest

    def __init__(self) -> None:
        super().__init__()
        self.notes = []

    @property
    def reads_boxes(self) -> bool:
        """Whether the term reads the box regressions of a head (``bbox_head[1]``)."""
        return self.student_tap is not None and self.student_tap.index[-1:] == (1,)

    @property
    def inputs(self) -> dict[str, str]:
        """Taps that the adapter itself needs, argument name → tap, as in a term's ``inputs``, which go over these.

        ``'bbox_head[0]'`` is the student's, ``'teacher:bbox_head[0]'`` the term's teacher's.
        """
        return {}

    def bind(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        """Get to know the two whole detectors, once, before the dry forward.

        Args:
            student: The student.
            teacher: The term's teacher (the student itself in self-distillation).
            key: The config key to blame, such as ``distill.fgd``.

        Raises:
            ConfigError: If the adapter cannot serve them.
        """
        self.student_net, self.teacher_net = Guest(student), Guest(teacher)

    def loss_options(self, index: int) -> dict[str, Any]:
        """Constructor options that the adapter knows better than the config: used where the loss has such an option and
        the config does not set it.

        Args:
            index: Number of the pair; 0 for a loss that takes all levels.
        """
        return {}

    def check_modules(self, student: nn.Module, teacher: nn.Module, key: str) -> None:
        """Check what shapes do not tell, from the two modules that the term's taps read.

        Args:
            student: The student's module.
            teacher: The teacher's module.
            key: The config key to blame, such as ``distill.fgd``.

        Raises:
            ConfigError: If their readings mean different things.
        """

    def prepare(
        self, student: Any, teacher: Any, context: dict[str, Any], key: str, same_channels: bool = True
    ) -> None:
        """Make layers and check, from the readings of a dry forward.

        Args:
            student: The student's reading.
            teacher: The teacher's reading.
            context: What :meth:`forward` will get.
            key: The config key to blame, such as ``distill.fgd``.
            same_channels: Whether the loss needs equal widths.

        Raises:
            ConfigError: If the readings cannot be made comparable.
        """

    def forward(self, student: Any, teacher: Any, context: dict[str, Any]) -> list[Pair]:
        """Make the readings comparable.

        Args:
            student: The student's reading.
            teacher: The teacher's reading, without graph.
            context: ``gt_bboxes``, ``gt_labels``, ``image_sizes``, ``batch_input_shape``, ``data_samples``, and the
                readings of the adapter's and the term's ``inputs``.
        """
        raise NotImplementedError
