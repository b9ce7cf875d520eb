"""Runs in the environment of TensorFlow Datasets: what it makes of RLDS shards, as one JSON value.

python in_tfds.py look FOLDER       every step as TensorFlow Datasets gives it, one digest each
python in_tfds.py whole FOLDER      every episode as Open X-Embodiment's loaders take it: all steps at once
python in_tfds.py batches FOLDER    every episode in batches of two steps, by DeepMind's rlds
"""

import hashlib
import json
import sys
from types import SimpleNamespace

import numpy as np  # noqa: TID253 - this script has an environment of its own
import tensorflow as tf
import tensorflow_datasets as tfds


def look(folder: str) -> dict:
    builder = tfds.builder_from_directory(folder)
    episodes = []
    for episode in _ordered(builder):
        steps = [flat(step) for step in tfds.as_numpy(episode["steps"])]
        row = {"metadata": plain(flat(tfds.as_numpy(episode["episode_metadata"]))), "steps": len(steps)}
        row["digests"] = {key: [digest(step[key]) for step in steps] for key in steps[0]}
        row["scalars"] = {
            key: [plain(step[key]) for step in steps]
            for key, value in steps[0].items()
            if np.ndim(value) == 0
        }
        row["shapes"] = {key: np.shape(value) for key, value in steps[0].items()}
        episodes.append(row)
    return {
        "tensorflow": tf.__version__,
        "datasets": tfds.__version__,
        "name": builder.info.full_name,
        "declared": builder.info.splits["train"].num_examples,
        "shards": builder.info.splits["train"].num_shards,
        "bytes": int(builder.info.splits["train"].num_bytes),
        "episodes": episodes,
    }


def whole(folder: str) -> dict:
    """As ``dlimp.DLataset.from_rlds`` reads under Octo, OpenVLA and openpi: no step is decoded by itself."""
    builder = tfds.builder_from_directory(folder)
    found = builder.as_dataset(
        split="train",
        shuffle_files=True,
        decoders={"steps": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(skip_prefetch=True, interleave_cycle_length=tf.data.AUTOTUNE),
    )
    episodes = {}
    for episode in found:
        number = int(episode["episode_metadata"]["episode_index"])
        digests = {}
        for key, values in flat(episode["steps"]).items():
            encoded = values.dtype == tf.string and "image" in key
            found_here = map(tf.io.decode_image, values) if encoded else values
            digests[key] = [digest(one.numpy()) for one in found_here]
        episodes[number] = {"digests": digests}
    return {"episodes": [episodes[number] for number in sorted(episodes)]}


def batches(folder: str) -> dict:
    # A replay server that only patterns over its tables need; none is built for this TensorFlow.
    names = dict.fromkeys(("Config", "ReferenceStep", "Pattern", "Condition"), object)
    sys.modules["reverb"] = SimpleNamespace(structured_writer=SimpleNamespace(**names))
    import rlds

    builder = tfds.builder_from_directory(folder)
    episodes = []
    for episode in _ordered(builder):
        steps = episode[rlds.STEPS]
        pairs = rlds.transformations.batch(steps, size=2, shift=1, drop_remainder=True)
        last = None
        count = 0
        for pair in pairs:
            count += 1
            last = bool(pair[rlds.IS_LAST][1])
            assert not bool(pair[rlds.IS_LAST][0])
        total = rlds.transformations.episode_length(steps)
        reward = rlds.transformations.sum_dataset(steps, lambda step: step[rlds.REWARD])
        episodes.append({"steps": int(total), "pairs": count, "endsLast": last, "reward": float(reward)})
    return {"episodes": episodes}


def _ordered(builder):
    """The episodes in the version's order: by default TensorFlow Datasets reads 16 shards in turns."""
    return builder.as_dataset(split="train", read_config=tfds.ReadConfig(interleave_cycle_length=1))


def flat(tree, prefix="") -> dict:
    out = {}
    for key, value in tree.items():
        out |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return out


def plain(value):
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def digest(value) -> str:
    data = value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()
    return hashlib.sha256(data).hexdigest()[:16]


if __name__ == "__main__":
    verb, folder = sys.argv[1:]
    print(json.dumps({"look": look, "whole": whole, "batches": batches}[verb](folder)))  # noqa: T201 - the result
