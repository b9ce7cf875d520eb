"""Checks of numbers: not finite, at their limits, frozen, jumping, constant, idle."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from emboflow_dagster.formats.quality.check import Check
from emboflow_dagster.formats.quality.evidence import Rule, Thresholds
from emboflow_dagster.formats.quality.view import EpisodeView

if TYPE_CHECKING:
    import numpy as np

JUMP_STD = 8.0
RANGE_WARN, RANGE_FAIL = 0.5, 0.99
FROZEN_WARN, FROZEN_FAIL = 0.5, 0.99
IDLE_WARN, IDLE_FAIL = 0.5, 0.95
#: A step below this share of a dimension's range is no movement: sensors are never quite still.
STILL = 1e-3
#: A dimension with so few different values is a switch (gripper open/closed), not a saturated axis.
SWITCH_VALUES = 2
#: A jump that is back after so many frames, but for this share of it, is an outlier and no movement.
BESIDE, RETURN = 2, 0.25


class NanInf(Check):
    """Every number is finite."""

    name = "nan_inf"
    title = "every number is finite"
    optional = True
    rules: ClassVar[dict[str, Rule]] = {"notFinite": Rule(fail=0)}

    def take(self, episode: EpisodeView) -> None:
        """An episode, and each of its datasets that could not be read: nothing is known of those."""
        super().take(episode)
        if episode.vectors:
            self.declared += len(episode.unresolved)

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        for name, values in episode.vectors.items():
            bad = ~np.isfinite(values)
            count = int(bad.sum())
            rows = np.flatnonzero(bad.reshape(len(values), -1).any(axis=1)) if count else None
            self.measure(
                "notFinite", count, "numbers", episode=episode.ref, feature=name, n=values.size,
                frames=None if rows is None else (int(rows[0]), int(rows[-1])),
                say=f"{episode.ref}: {name} has {count}",
            )  # fmt: skip
        self.values["numbers"] = self.values.get("numbers", 0) + sum(v.size for v in episode.vectors.values())
        return bool(episode.vectors)

    def _message(self) -> str:
        bad = self.total("notFinite")
        return f"{bad} numbers are NaN or infinite" if bad else "all numbers are finite"


@dataclass(slots=True)
class _Axis:
    """One dimension over all episodes: extremes, how often they occur."""

    low: float = float("inf")
    high: float = float("-inf")
    at_low: int = 0
    at_high: int = 0
    count: int = 0
    distinct: set[float] = field(default_factory=set)

    def see(self, column: "np.ndarray") -> None:
        import numpy as np

        column = column[np.isfinite(column)]
        if not column.size:
            return
        low, high = float(column.min()), float(column.max())
        if low < self.low:
            self.low, self.at_low = low, 0
        if high > self.high:
            self.high, self.at_high = high, 0
        self.at_low += int((column == self.low).sum())
        self.at_high += int((column == self.high).sum())
        self.count += int(column.size)
        if len(self.distinct) <= SWITCH_VALUES:
            self.distinct.update(np.unique(column)[: SWITCH_VALUES + 1].tolist())

    @property
    def constant(self) -> bool:
        return self.count > 0 and self.low == self.high

    @property
    def saturation(self) -> float:
        return (self.at_low + self.at_high) / self.count if self.count else 0.0


class _Axes(Check):
    """A check of each dimension over all episodes."""

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        super().__init__(thresholds)
        self._axes: dict[str, _Axis] = {}
        self._called: dict[str, str] = {}

    def _chosen(self, episode: EpisodeView) -> tuple[str, ...]:
        return tuple(episode.vectors)

    def _see(self, episode: EpisodeView) -> bool:
        chosen = self._chosen(episode)
        for name in chosen:
            for dim, column in enumerate(episode.vectors[name].T):
                key = f"{name}[{dim}]"
                self._axes.setdefault(key, _Axis()).see(column)
                self._called.setdefault(key, episode.called(name, dim))
        return bool(chosen)


class ActionRange(_Axes):
    """Actions do not sit at their extremes. Switches and constant dimensions are not judged here."""

    name = "action_range"
    asks = "actions"
    title = "action dimensions do not sit at their minimum or maximum"
    rules: ClassVar[dict[str, Rule]] = {
        "saturation": Rule(warn=RANGE_WARN, fail=RANGE_FAIL),
        "min": Rule(),
        "max": Rule(),
    }

    def _chosen(self, episode: EpisodeView) -> tuple[str, ...]:
        return episode.actions

    def finish(self) -> None:
        """Judge each dimension."""
        for name, axis in self._axes.items():
            if axis.constant or len(axis.distinct) <= SWITCH_VALUES:
                continue
            say = f"{self._called[name]}: {axis.saturation:.1%} of the samples at the minimum or maximum"
            self.measure("saturation", axis.saturation, feature=name, n=axis.count, say=say)
            self.measure("min", axis.low, feature=name, n=axis.count)
            self.measure("max", axis.high, feature=name, n=axis.count)
        self.values["switches"] = len(self._axes) - sum(r.metric == "saturation" for r in self.kept.rows)

    def _message(self) -> str:
        worst = self.most("saturation")
        return f"at most {worst:.1%} of a dimension's samples are at its minimum or maximum"


class StateRange(ActionRange):
    """The same of the robot's state: joints that stand at their limits."""

    name = "state_range"
    asks = "states of the robot"
    title = "state dimensions do not sit at their minimum or maximum"

    def _chosen(self, episode: EpisodeView) -> tuple[str, ...]:
        return episode.states


class FrozenAction(Check):
    """Actions change from frame to frame; a long run of equal ones is a pause or a frozen recorder."""

    name = "frozen_action"
    asks = "actions over two frames or more"
    title = "no long run of one and the same action"
    rules: ClassVar[dict[str, Rule]] = {
        "longestShare": Rule(warn=FROZEN_WARN, fail=FROZEN_FAIL),
        "longestRun": Rule(),
    }

    def _chosen(self, episode: EpisodeView) -> tuple[str, ...]:
        return episode.actions

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        chosen = self._chosen(episode)
        if not chosen or episode.length < 2:  # noqa: PLR2004 - a change needs two
            return False
        joined = np.concatenate([episode.vectors[name] for name in chosen], axis=1)
        moved = (np.diff(joined, axis=0) != 0).any(axis=1)
        edges = np.flatnonzero(np.concatenate([[True], moved, [True]]))
        runs = np.diff(edges)
        at, longest = int(runs.argmax()), int(runs.max())
        start, end = int(edges[at]), int(edges[at]) + longest - 1
        stamps = episode.stamps_ns
        where: dict[str, Any] = {
            "episode": episode.ref, "n": episode.length, "frames": (start, end),
            "ns": None if stamps is None else (int(stamps[start]), int(stamps[min(end, len(stamps) - 1)])),
        }  # fmt: skip
        what = "action" if chosen is episode.actions else "state"
        say = f"{episode.ref}: {longest} of {episode.length} frames repeat one {what}"
        self.measure("longestShare", longest / episode.length, say=say, **where)
        self.measure("longestRun", longest, "frames", **where)
        return True

    def _message(self) -> str:
        longest, share = self.most("longestRun"), self.most("longestShare")
        return f"the longest run without a change is {longest:.0f} frames ({share:.1%} of its episode)"


class FrozenState(FrozenAction):
    """The same of the robot's state: real encoders are never quite still."""

    name = "frozen_state"
    asks = "states of the robot over two frames or more"
    title = "no long run of one and the same state"

    def _chosen(self, episode: EpisodeView) -> tuple[str, ...]:
        return episode.states


class IdleRatio(Check):
    """How much of an episode nothing moves: no dimension of action or state by a thousandth of its range."""

    name = "idle_ratio"
    asks = "actions or states over two frames or more"
    title = "the robot moves for most of each episode"
    rules: ClassVar[dict[str, Rule]] = {"idleRatio": Rule(warn=IDLE_WARN, fail=IDLE_FAIL)}

    def _see(self, episode: EpisodeView) -> bool:
        moving = movement(episode)
        if moving is None:
            return False
        idle = float(1 - moving.mean())
        say = f"{episode.ref}: nothing moves in {idle:.0%} of the steps"
        self.measure("idleRatio", idle, episode=episode.ref, n=len(moving), say=say)
        return True

    def _message(self) -> str:
        return f"at most {self.most('idleRatio'):.1%} of an episode's steps are without movement"


def movement(episode: EpisodeView) -> "np.ndarray | None":
    """Whether the robot moves in each step, bool ``(length - 1,)``; ``None`` without actions and states."""
    import numpy as np

    chosen = [episode.vectors[name] for name in dict.fromkeys((*episode.states, *episode.actions))]
    if not chosen or episode.length < 2:  # noqa: PLR2004 - a step needs two
        return None
    joined = np.nan_to_num(np.concatenate(chosen, axis=1).astype(np.float64))
    reach = joined.max(axis=0) - joined.min(axis=0)
    return (np.abs(np.diff(joined, axis=0)) > STILL * reach).any(axis=1)


class Jumps(Check):
    """Nothing steps further than 8 standard deviations of its steps."""

    name = "jumps"
    asks = "actions or states over three frames or more"
    version = 3
    title = "no action or state steps further than 8 std of its steps"
    rules: ClassVar[dict[str, Rule]] = {"jumps": Rule(warn=0), "maxStepStd": Rule()}

    def _see(self, episode: EpisodeView) -> bool:
        import numpy as np

        chosen = dict.fromkeys((*episode.actions, *episode.states))
        if not chosen or episode.length < 3:  # noqa: PLR2004 - a spread of steps
            return False
        for name in chosen:
            values = _held(episode.vectors[name].astype(np.float64))
            size = step_sizes(values)
            # Either value of a switch is a jump from the other: it has no steps between.
            size[:, [len(np.unique(column)) <= SWITCH_VALUES for column in episode.vectors[name].T]] = 0
            far = (size > JUMP_STD).any(axis=1)
            first = int(far.argmax()) + 1
            names: dict[str, Any] = {"episode": episode.ref, "feature": name, "n": len(size)}
            say = None
            if far.any():
                dim = int(size[first - 1].argmax())
                step, many = abs(values[first, dim] - values[first - 1, dim]), int(far.sum())
                say = f"{episode.ref}: {episode.called(name, dim)} steps by {step:.3g} at frame {first}"
                say += f" ({size[first - 1, dim]:.0f} std)" + (f", and {many - 1} more" if many > 1 else "")
            frames = (first, first) if far.any() else None
            self.measure("jumps", int(far.sum()), "frames", frames=frames, say=say, **names)
            self.measure("maxStepStd", float(size.max()) if size.size else 0.0, "std", **names)
        return True

    def _message(self) -> str:
        jumps = self.total("jumps")
        return f"{jumps} frames jump by more than {JUMP_STD:g} std" if jumps else "no jumps"


def _held(values: "np.ndarray") -> "np.ndarray":
    """Without what is not finite, which has a check of its own: the number before it is held."""
    import numpy as np

    good = np.isfinite(values)
    if good.all():
        return values
    last = np.maximum.accumulate(np.where(good, np.arange(len(values))[:, None], 0), axis=0)
    return np.nan_to_num(np.take_along_axis(values, last, axis=0), posinf=0.0, neginf=0.0)


def step_sizes(values: "np.ndarray") -> "np.ndarray":
    """Each step's distance from the mean in std of all; of steps that come back in std of usual ones.

    One jump out and back in n frames is never beyond ``sqrt(n / 2)`` std of all steps, itself among them: in
    an episode of fewer than 128 frames none could be found, and several hide each other in a longer one.
    Such steps are held against the 90th percentile of those that move (1.64 std of what is spread as usual).

    Args:
        values: ``(length, dim)`` float64.

    Returns:
        ``(length - 1, dim)``.
    """
    import numpy as np

    steps = np.diff(values, axis=0)
    off = np.abs(steps - steps.mean(axis=0))
    spread = steps.std(axis=0)
    size = off / np.where(spread > 0, spread, np.inf)
    reach = values.max(axis=0) - values.min(axis=0)
    moving = (off > STILL * reach).sum(axis=0)
    rank = len(off) - 1 - moving // 10
    usual = np.take_along_axis(np.sort(off, axis=0), rank[None], axis=0)[0] / 1.64
    usual = np.maximum(usual, STILL * reach)
    back = off / np.where(usual > 0, usual, np.inf)
    for apart in range(1, BESIDE + 1):
        out, home = steps[:-apart], steps[apart:]
        rest = np.abs(values[apart + 1 :] - values[: -apart - 1])
        comes = (out * home < 0) & (rest < RETURN * np.minimum(np.abs(out), np.abs(home)))
        size[:-apart] = np.where(comes, np.maximum(size[:-apart], back[:-apart]), size[:-apart])
        size[apart:] = np.where(comes, np.maximum(size[apart:], back[apart:]), size[apart:])
    return size


class ZeroVariance(_Axes):
    """Every dimension varies; a constant one makes a normalised value NaN."""

    name = "zero_variance"
    title = "every dimension varies: a constant one is NaN once normalised"
    rules: ClassVar[dict[str, Rule]] = {"constant": Rule(warn=0)}

    def finish(self) -> None:
        """Judge each dimension."""
        for name, axis in self._axes.items():
            constant = axis.constant and axis.count > 1
            say = f"{self._called[name]} is always {axis.low:g}"
            self.measure("constant", int(constant), feature=name, n=axis.count, say=say)

    def _message(self) -> str:
        constant = self.total("constant")
        if constant:
            return f"{constant} of {len(self._axes)} dimensions never change"
        return f"all {len(self._axes)} dimensions vary"


VALUE_CHECKS: tuple[type[Check], ...] = (
    NanInf, ActionRange, StateRange, FrozenAction, FrozenState, IdleRatio, Jumps, ZeroVariance,
)  # fmt: skip
