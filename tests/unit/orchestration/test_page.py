"""What a step shows, as the metadata type that shows it best."""

import dagster as dg

from emboflow_dagster.orchestration import page


def kinds(shown):
    return {name: type(value).__name__ for name, value in shown.items()}


def test_every_form_of_a_page_becomes_its_metadata():
    shown = page.page_metadata(
        {
            "episodes": 3,
            "share": 0.5,
            "whole": True,
            "note": "fine",
            "report": {"markdown": "# Report"},
            "rows": {"table": [{"a": 1}]},
            "see": {"url": "https://example.org"},
            "raw": {"any": ["thing"]},
            "nothing": None,
        }
    )

    assert {name: shown[name] for name in ("episodes", "share", "whole", "note")} == {
        "episodes": 3,
        "share": 0.5,
        "whole": True,
        "note": "fine",
    }
    assert kinds(shown) | {} == {
        "episodes": "int",
        "share": "float",
        "whole": "bool",
        "note": "str",
        "report": "MarkdownMetadataValue",
        "rows": "TableMetadataValue",
        "see": "UrlMetadataValue",
        "raw": "JsonMetadataValue",
        "nothing": "NullMetadataValue",
    }


def test_rows_and_columns_are_what_dagster_draws():
    shown = page.page_metadata({"row_count": 7, "columns": {"time": "double", "joint": "int32"}})

    assert shown["dagster/row_count"] == 7
    assert [(c.name, c.type) for c in shown["dagster/column_schema"].schema.columns] == [
        ("time", "double"),
        ("joint", "int32"),
    ]


def test_a_table_has_the_columns_of_all_rows_and_types_of_their_own():
    value = page.table([{"name": "a", "n": 1}, {"name": "b", "n": 2, "ok": True, "deep": {"x": [1]}}])

    assert isinstance(value, dg.TableMetadataValue)
    assert {c.name: c.type for c in value.schema.columns} == {
        "name": "string",
        "n": "int",
        "ok": "bool",
        "deep": "string",
    }
    assert value.records[0].data == {"name": "a", "n": 1, "ok": None, "deep": None}
    assert value.records[1].data["deep"] == "{'x': [1]}"


def test_a_long_table_says_how_much_is_missing():
    value = page.table([{"n": i} for i in range(page.MAX_ROWS + 5)])

    assert isinstance(value, dg.TableMetadataValue)
    assert len(value.records) == page.MAX_ROWS + 1
    assert value.records[-1].data["n"] == "... and 5 more"


def test_no_rows_are_no_error():
    assert page.table([]).value == "no rows"


def test_texts_and_pages_are_bounded():
    shown = page.page_metadata({f"k{i}": "x" * 100_000 for i in range(100)})

    assert len(shown) == page.MAX_ENTRIES
    assert {len(value) for value in shown.values()} == {page.MAX_TEXT}
