"""Dockerfiles of custom nodes: self-contained, so that the text alone says what is in the image.

Source: requirements R-381.
"""

import re
from typing import Final

from emboflow_dagster.errors import ErrorKind
from emboflow_dagster.model.text import refuse

_DIRECTIVE: Final = re.compile(r"^#\s*(syntax|escape)\s*=", re.IGNORECASE)
_INSTRUCTION: Final = re.compile(r"^\s*(?:ONBUILD\s+)?([A-Za-z]+)\b(.*)$", re.DOTALL)


def check_dockerfile(text: str, path: str) -> str:
    """A Dockerfile that needs nothing beside itself; a layer may be copied from another stage or image.

    Raises:
        InvalidInputError: It copies from a build context, fetches a file, or begins with no ``FROM``.
    """
    instructions = _instructions(text, path)
    first = next((word for word, _, _ in instructions if word != "ARG"), None)
    if first != "FROM":
        raise refuse(ErrorKind.INVALID_INPUT, path, "a Dockerfile begins with FROM")
    for word, rest, number in instructions:
        if word == "ADD":
            raise refuse(ErrorKind.INVALID_INPUT, path, f"line {number}: ADD: there is no build context")
        if word == "COPY" and not re.match(r"\s*(--\S+\s+)*--from=\S+", rest):
            text_ = f"line {number}: COPY without --from=STAGE: there is no build context"
            raise refuse(ErrorKind.INVALID_INPUT, path, text_)
        if word == "RUN" and re.search(r"(^|\s)--mount=", rest):
            raise refuse(ErrorKind.INVALID_INPUT, path, f"line {number}: RUN --mount: nothing is mounted")
    return text


def _instructions(text: str, path: str) -> list[tuple[str, str, int]]:
    """Every instruction: its word, what follows it over all of its lines, and the line it begins in."""
    found: list[tuple[str, str, int]] = []
    held, began = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not held and _DIRECTIVE.match(line):
            raise refuse(ErrorKind.INVALID_INPUT, path, f"line {number}: directives are not allowed")
        if line.lstrip().startswith("#") or (held and not line.strip()):
            continue
        if not held:
            began = number
        if line.rstrip().endswith("\\"):
            held += line.rstrip()[:-1]  # joined as they are, so that no word hides in two lines
            continue
        match = _INSTRUCTION.match(held + line)
        held = ""
        if match:
            found.append((match[1].upper(), match[2], began))
        elif line.strip():
            raise refuse(ErrorKind.INVALID_INPUT, path, f"line {number}: is no instruction")
    if match := _INSTRUCTION.match(held):
        found.append((match[1].upper(), match[2], began))
    return found
