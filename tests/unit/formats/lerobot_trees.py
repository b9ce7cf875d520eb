"""LeRobot trees for tests: as good as lerobot writes them, or wrong in one way."""

import json

import av  # noqa: TID253 - this module writes what these libraries read
import numpy as np  # noqa: TID253
import pyarrow as pa  # noqa: TID253
import pyarrow.parquet as pq  # noqa: TID253

FPS = 10
WIDTH = 32


def picture(value):
    """A grey picture that tells which frame it is."""
    return np.full((WIDTH, WIDTH, 3), value, dtype=np.uint8)


def video(path, values, fps=FPS, *, gaps=()):
    """An mp4 of grey pictures; the places in `gaps` have none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = WIDTH
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "10", "g": "5", "bf": "2"}
        for place, value in enumerate(values):
            if place in gaps:
                continue
            frame = av.VideoFrame.from_ndarray(picture(value), format="rgb24")
            frame.pts = place
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def rows(index, length, before=0, task=0, **more):
    """The columns of one episode."""
    frame = np.arange(length)
    state = (index * 100 + frame[:, None] + np.array([0.0, 0.5])).astype(np.float32)
    return {
        "observation.state": pa.array(state.tolist(), pa.list_(pa.float32())),
        "action": pa.array((state + 1).tolist(), pa.list_(pa.float32())),
        "timestamp": pa.array((frame / FPS).astype(np.float32)),
        "frame_index": pa.array(frame),
        "episode_index": pa.array(np.full(length, index)),
        "index": pa.array(frame + before),
        "task_index": pa.array(np.full(length, task)),
        **more,
    }


def info(version, lengths, features=(), **more):
    vector = {"dtype": "float32", "shape": [2], "names": ["a", "b"]}
    declared = {"observation.state": vector, "action": vector}
    declared |= {f: {"dtype": "video", "shape": [WIDTH, WIDTH, 3], "names": None} for f in features}
    declared["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for name in ("frame_index", "episode_index", "index", "task_index"):
        declared[name] = {"dtype": "int64", "shape": [1], "names": None}
    return {
        "codebase_version": version,
        "robot_type": "arm",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": 1,
        "total_videos": len(lengths) * len(features),
        "chunks_size": 1000,
        "fps": FPS,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "features": declared,
        **more,
    }


def write_info(root, document):
    (root / "meta").mkdir(parents=True, exist_ok=True)
    (root / "meta/info.json").write_text(json.dumps(document))


def lines(path, found):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in found))


def tree_v21(root, lengths=(6, 4), *, features=("observation.images.top",), chunk=0, **more):
    """A 2.1 tree with a video of each episode."""
    write_info(root, info("v2.1", lengths, features, **more))
    lines(root / "meta/tasks.jsonl", [{"task_index": 0, "task": "stack"}, {"task_index": 1, "task": "rest"}])
    lines(
        root / "meta/episodes.jsonl",
        [{"episode_index": i, "tasks": ["stack"], "length": n} for i, n in enumerate(lengths)],
    )
    before = 0
    for index, length in enumerate(lengths):
        path = root / f"data/chunk-{chunk:03d}/episode_{index:06d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows(index, length, before)), path)
        before += length
        for feature in features:
            name = f"videos/chunk-{chunk:03d}/{feature}/episode_{index:06d}.mp4"
            video(root / name, [20 * index + 10 * place for place in range(length)])
    return root


def tree_v30(root, lengths=(6, 4, 5), *, feature="observation.images.top", one_file=True, meta=True):
    """A 3.0 tree: all rows in one file, all pictures of a camera in one video or each in its own."""
    write_info(
        root,
        info(
            "v3.0",
            lengths,
            [feature],
            data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        ),
    )
    starts = np.concatenate([[0], np.cumsum(lengths)])
    parts = [
        pa.table(rows(i, n, int(start))) for i, (n, start) in enumerate(zip(lengths, starts, strict=False))
    ]
    (root / "data/chunk-000").mkdir(parents=True)
    pq.write_table(pa.concat_tables(parts), root / "data/chunk-000/file-000.parquet", row_group_size=7)
    tasks = pa.table({"task_index": [0], "__index_level_0__": ["stack"]})
    pq.write_table(tasks, root / "meta/tasks.parquet")
    values = [(10 * place) % 250 for place in range(sum(lengths))]
    if one_file:
        video(root / f"videos/{feature}/chunk-000/file-000.mp4", values)
    else:
        for i, n in enumerate(lengths):
            path = root / f"videos/{feature}/chunk-000/file-{i:03d}.mp4"
            video(path, values[starts[i] : starts[i] + n])
    if meta:
        (root / "meta/episodes/chunk-000").mkdir(parents=True)
        found = {
            "episode_index": list(range(len(lengths))),
            "tasks": [["stack"]] * len(lengths),
            "length": list(lengths),
            f"videos/{feature}/chunk_index": [0] * len(lengths),
            f"videos/{feature}/file_index": [0 if one_file else i for i in range(len(lengths))],
            f"videos/{feature}/from_timestamp": [
                float(np.float32(s / FPS)) if one_file else 0.0 for s in starts[:-1]
            ],
            f"videos/{feature}/to_timestamp": [
                float(end / FPS) if one_file else n / FPS for n, end in zip(lengths, starts[1:], strict=True)
            ],
            "stats/action/min": [[0.0, 0.0]] * len(lengths),
        }
        pq.write_table(pa.table(found), root / "meta/episodes/chunk-000/file-000.parquet")
    return root
