"""The canonical dataset version, ``emboflow-canonical/1``: one layout that every source is brought to.

::

    manifest.json      what it is: features, counts, files with sha256, sources, producer
    frames.parquet     one row per frame: indices, grid time, the source's own stamp, vectors
    episodes.parquet   one row per episode: length, task, source, per-feature statistics
    tasks.parquet      task_index -> task
    raw_index.parquet  samples of streams kept at their own rate (only where asked for)
    videos/<camera>/episode_%06d.mp4

``schema`` says what is in it, the modules ``from_...`` make episodes, ``writer`` writes them one by one
(``separate`` into a package for each kind), ``reader`` gives them back after checking every hash, ``stats``
holds the per-feature statistics.
"""
