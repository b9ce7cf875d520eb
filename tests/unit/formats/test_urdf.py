"""Descriptions of robots: what a planner needs of them, and everything that keeps it from loading them."""

import json

import pytest

from emboflow_dagster.formats.probe import probe_path
from emboflow_dagster.formats.robot_xml import parse
from emboflow_dagster.formats.urdf_tree import faults, read_tree

LIMIT = '<limit lower="-1" upper="2" effort="3" velocity="4"/>'
BODY = '<inertial><mass value="{}"/><inertia ixx="{}" iyy="1" izz="1" ixy="0" ixz="0" iyz="0"/></inertial>'


def link(name, inside=""):
    return f'<link name="{name}">{inside}</link>'


def joint(name, parent, child, kind="revolute", inside=LIMIT):
    ends = f'<parent link="{parent}"/><child link="{child}"/>'
    return f'<joint name="{name}" type="{kind}">{ends}{inside}</joint>'


def robot(*parts):
    return f'<robot name="arm">{"".join(parts)}</robot>'


ARM = robot(
    link("base", BODY.format(2, 1)),
    link("upper", BODY.format(1.5, 1)),
    link("finger"),
    link("other"),
    link("tool", BODY.format(0, 0)),
    joint("elbow", "base", "upper"),
    joint("grip", "upper", "finger", "prismatic"),
    joint("grip2", "upper", "other", "prismatic", LIMIT + '<mimic joint="grip"/>'),
    joint("flange", "other", "tool", "fixed", '<axis xyz="0 0 0"/>'),
)

WRONG = {
    "twice a link": (robot(link("a"), link("a")), "urdf_duplicate_name", "links have the name: a"),
    "twice a joint": (
        robot(link("a"), link("b"), link("c"), joint("j", "a", "b"), joint("j", "b", "c")),
        "urdf_duplicate_name",
        "joints have the name: j",
    ),
    "no such link": (robot(link("a"), joint("j", "a", "gone")), "urdf_undefined_link", "gone"),
    "no end": (robot(link("a"), '<joint name="j" type="fixed"/>'), "urdf_undefined_link", "(none)"),
    "two roots": (robot(link("a"), link("b")), "urdf_several_roots", "2 links have no parent"),
    "no link": (robot(), "urdf_no_root", "no link"),
    "a ring": (
        robot(link("a"), link("b"), joint("j", "a", "b"), joint("k", "b", "a")),
        "urdf_loop",
        "by way of",
    ),
    "a ring's root": (robot(link("a"), joint("j", "a", "a")), "urdf_no_root", "every link"),
    "a closed chain": (
        robot(link("a"), link("b"), link("c"), joint("j", "a", "c"), joint("k", "b", "c")),
        "urdf_several_parents",
        ": c",
    ),
    "type": (
        robot(link("a"), link("b"), joint("j", "a", "b", "hinge")),
        "urdf_unknown_joint_type",
        "j (hinge)",
    ),
    "no limit": (robot(link("a"), link("b"), joint("j", "a", "b", inside="")), "urdf_limit_missing", "j"),
    "no effort": (
        robot(
            link("a"), link("b"), joint("j", "a", "b", inside='<limit lower="-1" upper="1" velocity="1"/>')
        ),
        "urdf_limit_missing",
        "j",
    ),
    "reversed": (
        robot(link("a"), link("b"), joint("j", "a", "b", inside=LIMIT.replace("-1", "9"))),
        "urdf_limit_reversed",
        "j",
    ),
    "no velocity": (
        robot(link("a"), link("b"), joint("j", "a", "b", inside=LIMIT.replace('"4"', '"0"'))),
        "urdf_limit_zero",
        "j",
    ),
    "mimic": (
        robot(link("a"), link("b"), joint("j", "a", "b", inside=LIMIT + '<mimic joint="k"/>')),
        "urdf_mimic_undefined",
        "j",
    ),
    "axis": (
        robot(link("a"), link("b"), joint("j", "a", "b", inside=LIMIT + '<axis xyz="0 0 0"/>')),
        "urdf_axis",
        "j",
    ),
    "mass": (robot(link("a", BODY.format(-1, 1))), "urdf_inertia", "below zero: a"),
    "weightless": (
        robot(link("a"), link("b", BODY.format(0, 1)), joint("j", "a", "b")),
        "urdf_inertia",
        "no body has: b",
    ),
    "inertia": (
        robot(link("a"), link("b", BODY.format(1, 5)), joint("j", "a", "b")),
        "urdf_inertia",
        "no body has: b",
    ),
    "number": (robot(link("a", BODY.format("1,5", 1))), "urdf_number", "a"),
}


def test_each_fault_is_named_with_what_it_is_about(tmp_path):
    path = tmp_path / "a.urdf"
    path.write_text(ARM)
    assert list(faults(read_tree(parse(path)))) == []

    missed = {}
    for case, (text, code, about) in WRONG.items():
        path.write_text(text)
        found = list(faults(read_tree(parse(path))))
        if not any(code == said and about in message for said, message in found):
            missed[case] = found

    assert missed == {}


def test_the_summary_says_what_moves_and_how_far(tmp_path):
    (tmp_path / "a.urdf").write_text(ARM)

    report = probe_path(tmp_path / "a.urdf")

    assert report.codes == frozenset()
    found = report.structure["urdf"]["a.urdf"]
    assert found["degreesOfFreedom"] == 2
    assert [said["name"] for said in found["actuatedJoints"]] == ["elbow", "grip"]
    assert found["actuatedJoints"][0] == {
        "name": "elbow",
        "type": "revolute",
        "lower": -1,
        "upper": 2,
        "effort": 3,
        "velocity": 4,
    }
    assert (found["root"], found["massKg"], found["missingMeshes"]) == ("base", 3.5, None)


def test_meshes_are_found_where_they_are(tmp_path):
    names = ["here.stl", "../up.stl", "Case.stl", "lfs.stl", "../../out.stl"]
    names += ["package://arm/deep/here.stl", "package://arm/gone.stl", "file://here.stl"]
    meshes = "".join(f'<visual><geometry><mesh filename="{name}"/></geometry></visual>' for name in names)
    (tmp_path / "urdf").mkdir()
    (tmp_path / "urdf/deep").mkdir()
    (tmp_path / "urdf/a.urdf").write_text(robot(link("a", meshes)))
    for name in ("urdf/here.stl", "up.stl", "urdf/case.stl", "urdf/deep/here.stl"):
        (tmp_path / name).write_bytes(b"solid")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 5\n"
    (tmp_path / "urdf/lfs.stl").write_text(pointer)

    report = probe_path(tmp_path)

    found = report.structure["urdf"]["urdf/a.urdf"]
    assert (found["missingMeshes"], found["meshPointers"]) == (3, 1)
    assert found["meshes"] == names
    missing = [warning.message for warning in report.warnings if warning.code == "missing_references"]
    assert missing == [
        "mesh Case.stl is not there; urdf/case.stl differs in upper and lower case only",
        "mesh ../../out.stl is not there",
        "mesh package://arm/gone.stl is not there",
    ]


LICENCE = "<?xml version='1.0'?><!--" + "licence " * 2_000 + "-->"
BOMB = "<!DOCTYPE robot [" + "".join(
    f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "lol"}">' for n in range(10)
)


@pytest.mark.parametrize(
    ("name", "data", "kind", "codes"),
    [
        ("late.urdf", (LICENCE + ARM).encode(), "urdf", set()),
        ("late.xml", (LICENCE + ARM).encode(), "urdf", set()),
        ("marked.urdf", b"\xef\xbb\xbf" + ARM.encode(), "urdf", set()),
        ("wide.urdf", ARM.encode("utf-16"), "urdf", set()),
        ("bomb.urdf", f"{BOMB}]><robot name='&l9;'/>".encode(), "urdf", {"corrupt"}),
        ("cut.urdf", ARM[:-40].encode(), "urdf", {"corrupt"}),
        ("text.urdf", b"hello", "unknown", {"unknown_format"}),
        ("page.xml", b"<html><robot/></html>", "unknown", {"unknown_format"}),
        (
            "a.urdf.xacro",
            b'<robot xmlns:xacro="http://ros.org/wiki/xacro"><xacro:macro name="leg"/></robot>',
            "xacro",
            {"xacro_not_expanded"},
        ),
        ("undeclared.xacro", b"<robot><xacro:leg/></robot>", "xacro", {"xacro_not_expanded", "corrupt"}),
        (
            "half.urdf",
            b'<robot xmlns:xacro="http://ros.org/wiki/xacro"><xacro:include filename="x"/></robot>',
            "urdf",
            {"xacro_not_expanded"},
        ),
        (
            "a.sdf",
            b'<sdf version="1.9"><model name="m"><link name="l"/></model></sdf>',
            "sdf",
            {"model_not_read"},
        ),
        (
            "a.xml",
            b'<mujoco model="m"><worldbody><body name="b"/></worldbody></mujoco>',
            "mjcf",
            {"model_not_read"},
        ),
    ],
)
def test_a_description_is_known_by_its_first_element(tmp_path, name, data, kind, codes):
    path = tmp_path / "in" / name
    path.parent.mkdir()
    path.write_bytes(data)

    alone, folder = probe_path(path), probe_path(path.parent)

    assert (alone.format, alone.codes) == (kind, codes)
    assert folder.format == kind
    json.dumps(alone.to_json())
    if kind in ("sdf", "mjcf"):
        assert alone.structure["models"][name]["name"] == "m"
