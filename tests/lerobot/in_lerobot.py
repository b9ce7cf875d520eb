"""Runs in the environment of real LeRobot: what it makes of a package, as one JSON value on standard output.

python in_lerobot.py look FOLDER       load, read and decode every frame, compare pictures with ffmpeg's
python in_lerobot.py edit FOLDER OUT   delete an episode, merge the set with itself
python in_lerobot.py readme FOLDER     do what its README says
python in_lerobot.py train [ARGUMENTS OF lerobot-train]
"""

import json
import subprocess
import sys
from pathlib import Path

import torch

# torchvision's own library is built for another torch; nothing here needs what it would register.
LIBRARY = torch.library.Library("torchvision", "DEF")
LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

AT_ONCE = 64
INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def look(folder: str) -> dict:
    import lerobot
    import numpy as np
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("emboflow/package", root=folder, video_backend="pyav")
    cameras = dataset.meta.video_keys
    # A look at one picture decodes from the key frame before it: many are asked for at once, as policies do.
    stamps = {key: [number / dataset.fps for number in range(AT_ONCE)] for key in cameras}
    wide = LeRobotDataset(
        "emboflow/package", root=folder, video_backend="pyav", delta_timestamps=stamps or None
    )
    pictures, differing, tasks, sums = 0, 0, set(), {}
    for episode in range(dataset.num_episodes):
        row = dataset.meta.episodes[episode]
        start, stop = row["dataset_from_index"], row["dataset_to_index"]
        for index in range(start, stop):
            one_by_one = not cameras or index in (start, (start + stop) // 2, stop - 1)
            item = dataset[index] if one_by_one else dataset.hf_dataset[index]
            assert int(item["episode_index"]) == episode
            assert int(item["frame_index"]) == index - start
            tasks.add(dataset.meta.tasks.iloc[int(item["task_index"])].name)
            for key, value in item.items():
                if key not in (*cameras, *INDICES, "task"):
                    sums[key] = sums.get(key, 0.0) + float(value.double().sum())
        for key in cameras:
            truth = ffmpeg(Path(folder) / dataset.meta.get_video_file_path(episode, key))
            shape = dataset.meta.features[key]["shape"]
            for index in range(start, stop, AT_ONCE):
                found = (wide[index][key] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
                for picture in found[: stop - index]:
                    pictures += 1
                    theirs = np.frombuffer(next(truth), np.uint8).reshape(shape)
                    differing += not np.array_equal(picture, theirs)
            assert next(truth, None) is None, "ffmpeg decodes more pictures than there are frames"
    return {
        "lerobot": lerobot.__version__,
        "torch": torch.__version__,
        "episodes": dataset.num_episodes,
        "frames": dataset.num_frames,
        "fps": dataset.fps,
        "features": sorted(dataset.features),
        "stats": {key: sorted(value) for key, value in dataset.meta.stats.items()},
        "tasks": sorted(tasks),
        "pictures": pictures,
        "differing": differing,
        "sums": sums,
    }


def ffmpeg(path: Path):
    """The pictures as ffmpeg decodes them, uint8 RGB, one after the other."""
    import imageio_ffmpeg
    from av import open as opened

    with opened(str(path)) as container:
        stream = container.streams.video[0]
        size = stream.width * stream.height * 3
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    command += [
        "-fps_mode",
        "passthrough",
        "-sws_flags",
        "bilinear",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        while picture := process.stdout.read(size):
            yield picture
    assert process.returncode == 0


def edit(folder: str, out: str) -> dict:
    from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset("emboflow/package", root=folder, video_backend="pyav")
    merged = merge_datasets([dataset, dataset], "emboflow/merged", output_dir=Path(out) / "merged")
    merged.video_backend = "pyav"
    deleted = delete_episodes(merged, [0], output_dir=Path(out) / "deleted", repo_id="emboflow/deleted")
    deleted.video_backend = "pyav"
    for found in (merged, deleted):  # the first and the last frame of what LeRobot wrote itself
        assert found[0] is not None
        assert found[len(found) - 1] is not None
    return {
        "merged": [merged.num_episodes, merged.num_frames],
        "deleted": [deleted.num_episodes, deleted.num_frames],
    }


def readme(folder: str) -> dict:
    import contextlib
    import os
    import re

    (code,) = re.findall(r"```python\n(.*?)```", (Path(folder) / "README.md").read_text(), re.DOTALL)
    os.chdir(folder)
    with contextlib.redirect_stdout(sys.stderr):
        done: dict = {}
        exec(code, done)  # noqa: S102 - it is what people do
    return {"episodes": done["dataset"].num_episodes, "frames": done["dataset"].num_frames}


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "train":
        from lerobot.scripts.lerobot_train import main

        sys.argv = ["lerobot-train", *arguments]
        main()
    else:
        print(json.dumps({"look": look, "edit": edit, "readme": readme}[verb](*arguments)))  # noqa: T201 - the result
