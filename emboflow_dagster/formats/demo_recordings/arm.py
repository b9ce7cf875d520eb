"""The robot of the demo: a planar arm with two joints, moved within its limits.

Joint angles are in radians from the horizontal (shoulder) and from the upper arm (elbow), torques in N m.
Everything follows from the targets: the same targets give the same numbers on every machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from emboflow_dagster.formats.extras import needs_extra

if TYPE_CHECKING:
    import numpy as np

ROBOT: Final = "two-joint-arm"
JOINTS: Final = ("shoulder", "elbow")
MAX_VELOCITY: Final = 1.6
"""rad/s."""
MAX_ACCELERATION: Final = 5.0
"""rad/s^2."""
LINKS: Final = (0.30, 0.25)
"""Lengths in m."""
MASSES: Final = (1.2, 0.8)
"""kg, spread evenly along the links."""
GRAVITY: Final = 9.81
ENCODER_STEPS: Final = 16_384
"""Per turn: what the joint states are rounded to."""

DWELL_S = 0.25
TICK_S = 0.05
# Peak velocity and acceleration of a minimum-jerk move over one radian in one second.
_PEAK_VELOCITY = 15 / 8
_PEAK_ACCELERATION = 10 / math.sqrt(3)


class Motion(NamedTuple):
    """Position, velocity, acceleration: float64 ``(n, 2)`` in rad, rad/s, rad/s^2."""

    position: "np.ndarray"
    velocity: "np.ndarray"
    acceleration: "np.ndarray"


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Minimum-jerk moves from target to target, with a rest at each.

    Attributes:
        targets: Two joint angles each; the first is where the arm starts.
    """

    targets: Sequence[tuple[float, float]]

    def moves(self) -> list[float]:
        """Seconds of each move: the shortest that keeps both limits, in whole ticks."""
        found = []
        for before, after in zip(self.targets, self.targets[1:], strict=False):
            way = max(abs(b - a) for a, b in zip(before, after, strict=True))
            seconds = max(
                _PEAK_VELOCITY * way / MAX_VELOCITY, math.sqrt(_PEAK_ACCELERATION * way / MAX_ACCELERATION)
            )
            found.append(math.ceil(round(seconds / TICK_S, 6)) * TICK_S)
        return found

    @property
    def duration(self) -> float:
        """Seconds from the first target to the end of the last rest."""
        return round(sum(self.moves()) + DWELL_S * (len(self.targets) + 1), 6)

    def at(self, seconds: "np.ndarray") -> Motion:
        """The motion at any times ``(n,)``; at rest before the first move and after the last."""
        import numpy as np

        position = np.tile(np.asarray(self.targets[0], dtype=np.float64), (len(seconds), 1))
        velocity, acceleration = np.zeros_like(position), np.zeros_like(position)
        start = DWELL_S
        for before, after, length in zip(self.targets, self.targets[1:], self.moves(), strict=False):
            way = np.subtract(after, before)
            s = np.clip((np.asarray(seconds) - start) / length, 0.0, 1.0)[:, None]
            position = position + way * s**3 * (10 - 15 * s + 6 * s**2)
            velocity = velocity + way / length * 30 * s**2 * (1 - s) ** 2
            acceleration = acceleration + way / length**2 * 60 * s * (1 - s) * (1 - 2 * s)
            start += length + DWELL_S
        return Motion(position, velocity, acceleration)


def measured(motion: Motion) -> Motion:
    """What the encoders say: positions in whole steps."""
    import numpy as np

    step = 2 * np.pi / ENCODER_STEPS
    return motion._replace(position=np.round(motion.position / step) * step)


def torques(motion: Motion) -> "np.ndarray":
    """The torques ``(n, 2)`` that the motion needs: two uniform rods in a vertical plane."""
    import numpy as np

    (l1, l2), (m1, m2) = LINKS, MASSES
    c1, c2 = l1 / 2, l2 / 2
    q1, q2 = motion.position.T
    v1, v2 = motion.velocity.T
    a1, a2 = motion.acceleration.T
    inner = m2 * l2**2 / 12 + m2 * c2**2
    outer = m1 * l1**2 / 12 + m1 * c1**2 + m2 * l1**2 + inner
    coupling = m2 * l1 * c2
    bend, swing = coupling * np.cos(q2), coupling * np.sin(q2)
    weight2 = GRAVITY * m2 * c2 * np.cos(q1 + q2)
    weight1 = GRAVITY * (m1 * c1 + m2 * l1) * np.cos(q1) + weight2
    shoulder = (outer + 2 * bend) * a1 + (inner + bend) * a2 - swing * v2**2 - 2 * swing * v1 * v2 + weight1
    elbow = (inner + bend) * a1 + inner * a2 + swing * v1**2 + weight2
    return np.stack([shoulder, elbow], axis=1)


def picture(position: Sequence[float], *, size: tuple[int, int] = (96, 72)) -> bytes:
    """What a camera beside the arm sees, as JPEG."""
    import io

    with needs_extra("plots"):
        from PIL import Image, ImageDraw

    width, height = size
    image = Image.new("RGB", size, (236, 239, 243))
    draw = ImageDraw.Draw(image)
    scale = 0.9 * height / (2 * sum(LINKS))
    base = (width / 2, height * 0.55)
    shoulder, elbow = position
    joint = (
        base[0] + scale * LINKS[0] * math.cos(shoulder),
        base[1] - scale * LINKS[0] * math.sin(shoulder),
    )
    hand = (
        joint[0] + scale * LINKS[1] * math.cos(shoulder + elbow),
        joint[1] - scale * LINKS[1] * math.sin(shoulder + elbow),
    )
    draw.rectangle((0, height * 0.92, width, height), fill=(176, 184, 194))
    draw.line((*base, base[0], height * 0.92), fill=(90, 98, 110), width=5)
    draw.line((*base, *joint), fill=(36, 98, 163), width=4)
    draw.line((*joint, *hand), fill=(230, 126, 34), width=3)
    for x, y in (base, joint, hand):
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(40, 44, 52))
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=85)
    return out.getvalue()
