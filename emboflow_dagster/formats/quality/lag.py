"""A check of action beside state: the robot follows its action, soon, and as soon in every episode."""

from typing import TYPE_CHECKING, ClassVar

from emboflow_dagster.formats.quality.check import Check
from emboflow_dagster.formats.quality.evidence import Rule, Thresholds
from emboflow_dagster.formats.quality.view import EpisodeView

if TYPE_CHECKING:
    import numpy as np

LATE_WARN, RESPONSE_WARN_S, SHIFT_WARN = 1, 0.5, 2
#: How far apart action and state are looked for, in s; frames where no rate is known.
REACH_S, REACH_FRAMES = 1.0, 20
#: Steps of a dimension that lie together like this are the same movement; less says nothing. So many of those
#: that move have to: that one alone does, as a gripper's may, is chance.
ALIKE, ALIKE_SHARE = 0.6, 0.25
#: ... and the state is where the action says, within this share of its std: a speed is no place.
APART = 0.5
#: Frames that steps are averaged over: noise has steps, too.
SMOOTH = 3
MIN_FRAMES = 30


class ActionLag(Check):
    """State follows action: never the other way around, and in each episode as in the others."""

    name = "action_lag"
    asks = "states that follow actions"
    version = 1
    title = "the state follows the action within half a second, alike in every episode"
    optional = True
    rules: ClassVar[dict[str, Rule]] = {
        "actionLate": Rule(warn=LATE_WARN),
        "responseS": Rule(warn=RESPONSE_WARN_S),
        "lagShift": Rule(warn=SHIFT_WARN),
        "lagFrames": Rule(),
        "alike": Rule(),
    }

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        super().__init__(thresholds)
        self._lags: dict[str, int] = {}

    def take(self, episode: EpisodeView) -> None:
        """An episode in which action and state are one movement: of speeds nothing is to be said."""
        self.declared += self._see(episode)
        self.resolved = self.declared

    def _see(self, episode: EpisodeView) -> bool:
        pair = _pair(episode)
        if pair is None or episode.length < MIN_FRAMES:
            return False
        reach = round(REACH_S * episode.fps) if episode.fps else REACH_FRAMES
        found = lag_of(*pair, max(1, min(reach, episode.length // 4)))
        if found is None:
            return False
        lag, alike = found
        self._lags[episode.ref] = lag
        where = {"episode": episode.ref, "n": episode.length}
        self.measure("lagFrames", lag, "frames", **where)
        self.measure("alike", alike, "", **where)
        late = f"{episode.ref}: the action comes {-lag} frames after the state that it leads to"
        self.measure("actionLate", max(0, -lag), "frames", say=late, **where)
        if episode.fps:
            after = max(0, lag) / episode.fps
            say = f"{episode.ref}: the state follows {after:.2f} s after the action"
            self.measure("responseS", after, "s", say=say, **where)
        return True

    def finish(self) -> None:
        """Hold each episode against the middle of all."""
        import numpy as np

        usual = int(np.median(list(self._lags.values())))
        self.values["usualLagFrames"] = usual
        for ref, lag in self._lags.items():
            say = f"{ref}: the state follows after {lag} frames, in the others after {usual}"
            self.measure("lagShift", abs(lag - usual), "frames", episode=ref, say=say)

    def _message(self) -> str:
        low, high = self.least("lagFrames"), self.most("lagFrames")
        return f"the state follows the action after {low:.0f} to {high:.0f} frames"


def _pair(episode: EpisodeView) -> "tuple[np.ndarray, np.ndarray] | None":
    """The first action and state that have equally many dimensions."""
    for action in episode.actions:
        for state in episode.states:
            one, other = episode.vectors[action], episode.vectors[state]
            if one.shape == other.shape and one.shape[1]:
                return one, other
    return None


def lag_of(action: "np.ndarray", state: "np.ndarray", reach: int) -> tuple[int, float] | None:
    """By how many frames the steps of `state` follow those of `action`, and their correlation there.

    Args:
        action: ``(length, dim)``.
        state: ``(length, dim)``; dimension by dimension the same joint, in any unit.
        reach: Frames that are looked at either way.

    Returns:
        Frames, negative where the state comes first, and the mean correlation of the dimensions that move
        alike; ``None`` where too few do.
    """
    import numpy as np

    window = np.ones(SMOOTH) / SMOOTH

    def steps(values: "np.ndarray") -> "np.ndarray":
        whole = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
        return np.diff(np.stack([np.convolve(column, window, "valid") for column in whole.T], axis=1), axis=0)

    one, other = steps(action), steps(state)
    moving = (np.abs(one).max(axis=0) > 0) & (np.abs(other).max(axis=0) > 0)
    one, other = one[:, moving], other[:, moving]
    # From no lag outwards: of equals the smallest.
    shifts = sorted(range(-reach, reach + 1), key=abs)
    alike = np.zeros((len(shifts), one.shape[1]))
    for place, shift in enumerate(shifts):
        ahead = one[: len(one) - shift] if shift >= 0 else one[-shift:]
        behind = other[shift:] if shift >= 0 else other[:shift]
        weight = np.sqrt((ahead**2).sum(axis=0) * (behind**2).sum(axis=0))
        alike[place] = (ahead * behind).sum(axis=0) / np.where(weight > 0, weight, np.inf)
    same = alike.max(axis=0, initial=0.0) >= ALIKE
    for column, (said, is_at) in enumerate(zip(action.T[moving], state.T[moving], strict=True)):
        shift = shifts[int(alike[:, column].argmax())]
        ahead, behind = (
            (said[: len(said) - shift], is_at[shift:]) if shift >= 0 else (said[-shift:], is_at[:shift])
        )
        same[column] &= bool(np.nanstd(ahead - behind) <= APART * np.nanstd(is_at))
    if not same.any() or same.mean() < ALIKE_SHARE:
        return None
    together = alike[:, same].mean(axis=1)
    best = int(together.argmax())
    return shifts[best], float(together[best])
