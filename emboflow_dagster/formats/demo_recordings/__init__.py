"""The recordings of the demo: made here, or found in a folder; and which of them go together.

``make`` writes them, ``arm`` is the robot they show, ``ros_files`` and ``demonstrations`` the files,
``find`` looks for recordings in any folder, ``together`` says which can become one dataset.
"""
