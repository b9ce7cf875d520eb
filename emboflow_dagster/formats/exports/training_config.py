"""A training config package: what `lerobot-train` is started with, and which episodes are trained on.

::

    train_config.json        for `lerobot-train --config_path=`
    lineage/episodes.jsonl   place, id and hash of every episode that is trained on
    README.md, delivery.json, SHA256SUMS

Source: lerobot 0.4.4, `lerobot/configs/train.py`, `default.py`, `policies/*/configuration_*.py`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from emboflow_dagster.errors import ErrorKind, InvalidInputError, Problem
from emboflow_dagster.formats.exports.lerobot_v3 import ENVIRONMENT_STATE, INDEX_FEATURES

CONFIG_FILE: Final = "train_config.json"
TRAINER: Final = "lerobot"
TRAINER_VERSION: Final = "0.4.4"
POLICIES: Final = (
    *("act", "diffusion", "groot", "pi0", "pi05", "pi0_fast", "smolvla"),
    *("tdmpc", "vqbet", "wall_x", "xvla"),
)
STATE: Final = "observation.state"
ACTION: Final = "action"
#: What a policy cannot do without. ACT calls the state optional and asks for its device all the same (0.4.4).
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = dict.fromkeys(("act", "diffusion", "tdmpc", "vqbet"), (STATE,))
#: Policies that need a picture, or the state of the environment.
_SEES: Final = frozenset({"act", "diffusion"})


def config_of(
    *,
    name: str,
    version_sha256: str,
    policy: str,
    settings: Mapping[str, Any],
    features: Mapping[str, Any],
    episodes: Sequence[int] | None = None,
) -> dict[str, Any]:
    """What `lerobot-train` reads.

    Args:
        name: Of the dataset; LeRobot wants one with a slash, ours is ``emboflow/<name>``.
        version_sha256: Pins the version: LeRobot asks for that revision where the folder is not there.
        policy: One of :data:`POLICIES`.
        settings: ``steps``, ``batchSize``, ``seed``, ``numWorkers``, ``datasetRoot``, ``device``,
            ``policyOptions``, ``options``.
        features: As `info.json` has them.
        episodes: Places of the episodes that are trained on, ``None`` for all.
    """
    pictures = any(spec["dtype"] in ("video", "image") for spec in features.values())
    chosen: dict[str, Any] = {"type": policy, "device": settings["device"], "push_to_hub": False}
    config: dict[str, Any] = {
        "dataset": {
            "repo_id": f"emboflow/{name}",
            "root": settings["datasetRoot"],
            "revision": version_sha256,
            "episodes": None if episodes is None else list(episodes),
            "video_backend": "pyav",
            "use_imagenet_stats": pictures,
        },
        "policy": {**chosen, **settings["policyOptions"]},
        "output_dir": f"outputs/{name}-{policy}",
        "job_name": f"{name}-{policy}",
        "seed": settings["seed"],
        "num_workers": settings["numWorkers"],
        "batch_size": settings["batchSize"],
        "steps": settings["steps"],
        "save_freq": settings["steps"],
        "eval_freq": 0,
        "wandb": {"enable": False},
    }
    return _over(config, settings["options"])


def check_features(features: Mapping[str, Any], policy: str, requires: Sequence[str]) -> None:
    """Whether a dataset has what the user and the policy ask of it.

    Raises:
        InvalidInputError: Kind ``input-missing``, with each feature that is not there and all that are.
    """
    there = {name: spec for name, spec in features.items() if name not in INDEX_FEATURES}
    told = ", ".join(f"{name} {'x'.join(map(str, there[name]['shape']))}" for name in sorted(there)) or "none"
    missing = [name for name in dict.fromkeys(requires) if name not in features]
    problems = [
        Problem(ErrorKind.INPUT_MISSING, name, f"is required and not in the dataset, which has {told}")
        for name in missing
    ]
    problems += [
        Problem(ErrorKind.INPUT_MISSING, name, f"policy {policy} needs it; the dataset has {told}")
        for name in (ACTION, *_NEEDS.get(policy, ()))
        if name not in features and name not in missing
    ]
    pictures = [name for name, spec in there.items() if spec["dtype"] in ("video", "image")]
    if policy in _SEES and not pictures and ENVIRONMENT_STATE not in (*there, *missing):
        text = f"policy {policy} needs a picture or this feature; the dataset has {told}"
        problems.append(Problem(ErrorKind.INPUT_MISSING, ENVIRONMENT_STATE, text))
    if problems:
        raise InvalidInputError.of(problems)


def places(text: str | None, episodes: int) -> list[int] | None:
    """``0-9,12`` as places, ``None`` for all.

    Raises:
        InvalidInputError: Not of that form, or an episode that is not there.
    """
    if text is None:
        return None
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        if match is None:
            raise InvalidInputError(f"episodes: found {part!r}; places are written 0-9,12")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= episodes or first > last:
            raise InvalidInputError(f"episodes: found {part.strip()}; there are 0 to {episodes - 1}")
        found += range(first, last + 1)
    return sorted(set(found))


def _over(config: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what the user says differently, however deep."""
    out = dict(config)
    for name, value in options.items():
        have = out.get(name)
        out[name] = _over(have, value) if isinstance(have, dict) and isinstance(value, Mapping) else value
    return out
