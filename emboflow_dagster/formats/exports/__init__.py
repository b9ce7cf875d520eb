"""A dataset version in the layouts that others read, and what a trainer is told about it.

Every package is a folder that says of itself what it is::

    README.md            for people: what it holds, how it is used and checked
    delivery.json        for programs: the version, its hashes, its files
    lineage/episodes.jsonl   place of each episode -> its id, the hash of its data, its source
    SHA256SUMS           of every file; written last, so that a folder that has one is complete

Nothing in it depends on when, where or by whom it is written: the same version, options and libraries give
the same bytes (decision 29). ``identity`` says which version it is, ``package`` closes a folder,
``lerobot_v3`` and ``rlds`` write layouts, ``lerobot_check`` and ``package`` check them, ``training_config``
writes what `lerobot-train` is started with, ``archives`` makes one file of a folder.
"""
