"""A global heap that the HDF5 library would not come back from."""

import struct

import h5py  # noqa: TID253 - this module is about its files
import numpy as np  # noqa: TID253
import pytest

from emboflow_dagster.formats.hdf5_layout import open_hdf5
from emboflow_dagster.formats.probe import probe_path


@pytest.mark.parametrize(("number", "length"), [(0, 0), (7, 2**64 - 16)])
def test_a_step_of_no_bytes_is_found_before_the_library_stands_before_it(tmp_path, number, length):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file.attrs["model"] = "<mujoco/>"  # of varying length, so in a heap
        file["not a heap"] = np.frombuffer(b"GCOL" * 4, np.uint8)
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL\x01") + 16
    while (found := struct.unpack_from("<HH4xQ", data, at))[0]:
        at += 16 + (found[2] + 7) // 8 * 8
    with open_hdf5(path) as file:
        assert file.attrs["model"] == "<mujoco/>"

    struct.pack_into("<HH4xQ", data, at, number, 0, length)
    path.write_bytes(data)

    with pytest.raises(OSError, match="global heap at byte"):
        open_hdf5(path)
    assert [warning["code"] for warning in probe_path(path).to_json()["warnings"]] == ["corrupt"]
