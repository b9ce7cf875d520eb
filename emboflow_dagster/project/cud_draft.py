"""One change of a request to `ef.cud` on its way to a document."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from emboflow_dagster.errors import EmboflowError, ErrorKind, InvalidInputError, Problem, shown
from emboflow_dagster.model.base import Document, invalid
from emboflow_dagster.model.blob import BlobObject
from emboflow_dagster.model.blob_fields import OFTEN_INLINE, as_blob_ref, refuse_as_ref, stored_ref, values_of
from emboflow_dagster.model.collections import COLLECTIONS
from emboflow_dagster.model.records import GIVEN, RECORDS, VERBS, is_out_of_use, references_of
from emboflow_dagster.model.scope import Scope
from emboflow_dagster.model.storage import BlobRef, StorageRef
from emboflow_dagster.model.text import check_id
from emboflow_dagster.mongo.audit import Entry
from emboflow_dagster.mongo.client import Raw
from emboflow_dagster.mongo.ownership import Mention
from emboflow_dagster.project.changes import Change, Create, Deactivate, Update

#: Fields that say what a record is, for the audit log.
_TOLD: Final = ("displayName", "name", "type", "labelType", "targetType", "producerType", "status")
_IN_PLACE: Final = ("registered_path", "object_storage")
_SOME_REF: Final = StorageRef(
    bucket="none", key="none", uri="file:///none", checksum=f"sha256:{'0' * 64}", content_type="a/b", size=0
).to_mongo()


class Draft:
    """A change, what is wrong with it, and the document it makes."""

    document: Document

    def __init__(self, number: int, change: Change, new_id: str, scope: Scope, now: datetime) -> None:
        self.number = number
        self.change = change
        self.problems: list[Problem] = []
        self.collection = str(change.collection)
        self.id: str = new_id if isinstance(change, Create) else change.id
        self.stored: Raw | None = None
        self.fields: Raw = {}
        self.written: set[str] = set()
        """Stored names of the fields that the caller gave."""
        self.body: Raw = {}
        self._scope = scope
        self._now = now
        self._refs: dict[str, BlobRef] = {}
        self._values: Raw = {}
        self.built = False
        self.usable = self._check_verb()
        if self.usable:
            self.row = COLLECTIONS[self.collection]
            self.rule = RECORDS[self.collection]
            if not isinstance(change, Deactivate):
                self._take(change.fields)

    # ------------------------------------------------------------------------------------ what was asked for

    def add(self, kind: ErrorKind, field: str, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, self._path(field), message))

    def _path(self, field: str) -> str:
        return f"{self.number}.{self.collection}" + (f".{field}" if field else "")

    def _guarded(self, field: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except EmboflowError as error:
            rows = error.problems or (Problem(error.kind, "", error.message),)
            self.problems += [Problem(p.kind, self._path(field), p.message) for p in rows]
            return None

    def _check_verb(self) -> bool:
        rule, name = RECORDS.get(self.collection), self.collection
        if rule is None or (isinstance(self.change, Create) and rule.create is None):
            why = VERBS.get(name)
            text = f"{name} {why}" if why else f"found {shown(name)}; writable are {', '.join(RECORDS)}"
            self.add(ErrorKind.FORBIDDEN if why else ErrorKind.INVALID_INPUT, "", text)
            return False
        if isinstance(self.change, Update) and rule.update is None:
            self.add(ErrorKind.IMMUTABLE, "", f"{name} never change once written")
            return False
        if isinstance(self.change, Deactivate) and rule.deactivate is None:
            self.add(ErrorKind.IMMUTABLE, "", f"{name} are never put out of use")
            return False
        if isinstance(self.change, Create):
            return True
        return self._guarded("id", lambda: check_id(self.id)) is not None

    def _take(self, fields: object) -> None:
        if not isinstance(fields, Mapping):
            self.add(ErrorKind.NOT_A_DICT, "", f"found {shown(fields)}; a mapping of fields is needed")
            return
        names = _stored_names(self.collection)
        for key, value in fields.items():
            name = names.get(key) if isinstance(key, str) else None
            if name is None:
                self.add(
                    ErrorKind.INVALID_INPUT, "", f"found the field {shown(key)}; known are {self._known()}"
                )
            elif name in GIVEN or name in self.rule.kept:
                self.add(ErrorKind.KEY_RESERVED, name, "is filled in by the library")
            elif isinstance(self.change, Update) and self._frozen(name):
                self.add(ErrorKind.IMMUTABLE_FIELD, name, "never changes once written")
            elif name in self.row.blobs:
                self._take_blob(name, value)
            elif isinstance(value, BlobRef):
                self.add(
                    ErrorKind.BLOB_FIELD, name, f"owner field {self.collection}.{name} is not of blob type"
                )
            else:
                self.fields[name] = _copy(value)
        self.written = {*self.fields, *self._refs}

    def _take_blob(self, name: str, value: object) -> None:
        before = len(self.problems)
        ref = self._guarded(name, lambda: as_blob_ref(value))
        if ref is not None:
            self._refs[name] = ref
            return
        if (self.collection, name) in OFTEN_INLINE:
            self.fields[name] = _copy(value)
            return
        if len(self.problems) == before:
            why = refuse_as_ref(value)
            self.problems += [Problem(p.kind, self._path(name), _placed(p)) for p in why.problems]
        self._values |= self._stand_in(name)

    def _known(self) -> str:
        return ", ".join(sorted(self.row.fields - GIVEN - self.rule.kept))

    def _frozen(self, name: str) -> bool:
        if "*" in self.row.immutable:
            return not (name == "status" and self.rule.transitions is not None)
        return name in self.row.immutable

    def map_names(self, known: Mapping[str, str]) -> None:
        """Put ids in the place of the names of new records, in reference fields alone."""
        if not self.usable:
            return
        told = {**self.rule.defaults, **self.fields}
        paths = {r.field for r in references_of(self.collection, told)} | {"producerId", "targetRef.id"}
        for path in paths:
            *parents, last = path.split(".")
            place: Any = self.fields
            for part in parents:
                place = place.get(part) if isinstance(place, dict) else None
            if not isinstance(place, dict) or last not in place:
                continue
            value = place[last]
            place[last] = (
                [self._mapped(path, one, known) for one in value]
                if isinstance(value, list)
                else self._mapped(path, value, known)
            )

    def _mapped(self, path: str, value: object, known: Mapping[str, str]) -> object:
        if not isinstance(value, str) or not value.startswith("#"):
            return value
        if value not in known:
            self.add(ErrorKind.REF_NOT_FOUND, path, f"found {shown(value)}; no Create of this request has it")
        return known.get(value, "unknown")

    # ---------------------------------------------------------------------------------- what is there already

    def load(self, stored: Raw | None) -> None:
        """Take the document that is changed."""
        if stored is None:
            self.add(ErrorKind.NOT_FOUND, "", f"document {self.collection} with ID {self.id} not found")
            return
        self.stored = stored
        status = str(stored.get("status"))
        target = self.rule.inactive if isinstance(self.change, Deactivate) else self.fields.get("status")
        target = getattr(target, "value", target)
        if isinstance(self.change, Deactivate) and status == target:
            self.add(ErrorKind.STATE, "status", f"{self.id} is {status} already")
        elif isinstance(self.change, Update) and target is None and is_out_of_use(self.collection, stored):
            self.add(ErrorKind.STATE, "status", f"{self.id} is {status}; nothing of it changes")
        elif target is not None and self.rule.transitions is not None:
            following = self.rule.transitions.get(status, frozenset())
            if target not in following:
                allowed = ", ".join(sorted(following)) or "nothing"
                self.add(ErrorKind.STATE, "status", f"{self.id} is {status}; {allowed} may follow")
        if self.collection == "assets" and self._refs and stored.get("sourceType") in _IN_PLACE:
            self.add(ErrorKind.BLOB_FIELD, "storageRef", "its files are where they are; register the others")

    def mentions(self) -> Iterator[Mention]:
        """The blobs that this change is about; an unchanged one of a record in use is not (R-424)."""
        for field in self.row.blobs if self.usable else ():
            stored = stored_ref((self.stored or {}).get(field))
            back = self._comes_back()
            ref = self._refs.get(field, stored if back and field not in self.fields else None)
            if ref is None or (ref == stored and not back):
                self._refs.pop(field, None)
                continue
            kept = ref == stored
            yield Mention(ref, self.collection, self.id, field, self._path(field), kept=kept)

    def _comes_back(self) -> bool:
        return isinstance(self.change, Update) and is_out_of_use(self.collection, self.stored or {})

    def resolve(self, mention: Mention, blob: BlobObject | None) -> None:
        """Take what the record keeps of a blob."""
        if mention.field not in self._refs:  # of a record that comes back, as it is
            return
        values = blob and self._guarded(
            mention.field, lambda: values_of(self.collection, mention.field, blob)
        )
        self._values |= values or self._stand_in(mention.field)

    def _stand_in(self, field: str) -> Raw:
        """For a blob that was refused, so that the other fields are looked at all the same."""
        if (self.collection, field) in OFTEN_INLINE:
            return {field: {}}
        return {field: _SOME_REF} | ({"sizeBytes": 0, "fileCount": 1} if self.collection == "assets" else {})

    def replaced(self) -> Iterator[Mention]:
        """The versions that the record names no longer."""
        for field in self.row.blobs if self.stored else ():
            stored = stored_ref((self.stored or {}).get(field))
            named = field in self.fields or field in self._refs
            if stored is not None and named and self._refs.get(field) != stored:
                yield Mention(stored, self.collection, self.id, field)

    # ------------------------------------------------------------------------------------------ the document

    @property
    def changed(self) -> list[str]:
        """Stored names of the fields that an update sets."""
        names = {*self.fields, *self._values} | ({"status"} if isinstance(self.change, Deactivate) else set())
        return sorted(names | ({"updatedAt"} & self.row.fields))

    def build(self) -> None:
        """Make the document, or note what is wrong with it."""
        if not self.usable or (self.stored is None and not isinstance(self.change, Create)):
            return
        if self.collection == "assets" and self.fields.get("sourceType") in _IN_PLACE:
            self.add(
                ErrorKind.INVALID_INPUT, "sourceType", "files in place are registered with ef.assets.register"
            )
        self.body = {**(self.stored or self._given()), **self.fields, **self._values}
        if isinstance(self.change, Deactivate):
            self.body["status"] = self.rule.inactive
        if "updatedAt" in self.row.fields:
            self.body["updatedAt"] = self._now
        model: Any = self.row.document
        try:
            if self.stored is None:
                self.document = model.model_validate(self.body, by_alias=True)
            else:
                self.document = model.model_validate(self.body, by_alias=True, extra="ignore")
        except ValidationError as error:
            self._refuse(invalid(error, self.collection))
        else:
            self.body = self.document.to_mongo()
            self.built = True

    def _refuse(self, error: InvalidInputError) -> None:
        known = {problem.path for problem in self.problems}
        rows = [Problem(p.kind, f"{self.number}.{p.path}", p.message) for p in error.problems]
        self.problems += [row for row in rows if row.path not in known]

    def _given(self) -> Raw:
        values = {
            "_id": self.id,
            "workspaceId": self._scope.workspace_id,
            "projectId": self._scope.project_id,
            "createdBy": self._scope.actor,
            "createdAt": self._now,
        }
        return {
            **{name: _copy(value) for name, value in self.rule.defaults.items()},
            **{name: value for name, value in values.items() if name in self.row.fields},
        }

    def entry(self) -> Entry:
        """The row of the audit log that says this was done."""
        action = {
            Create: self.rule.create,
            Update: self.rule.update,
            Deactivate: self.rule.deactivate,
        }[type(self.change)]
        names = (
            self.changed if self.stored is not None else sorted({*self.row.blobs, *_TOLD} & self.row.fields)
        )
        before = self._told(self.stored, names) if self.stored is not None else None
        after = self._told(self.document.to_mongo(), names)
        if self.stored is not None:
            after["fields"] = [name for name in names if name != "updatedAt"]
        return Entry(str(action), self.collection, self.id, before, after)

    def _told(self, document: Raw, names: list[str]) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for name in names:
            value = document.get(name)
            if name in self.row.blobs:
                ref = stored_ref(value)
                told[name] = {"objectId": ref.object_id, "version": ref.version} if ref else None
            elif name in _TOLD and value is not None:
                told[name] = str(value)
        return told


def _placed(problem: Problem) -> str:
    return f"{problem.path}: {problem.message}" if problem.path else problem.message


def _copy(value: Any) -> Any:
    """So that ids can be put in the place of names: one level deep."""
    if type(value) is dict:
        return dict(value)
    return list(value) if type(value) is list else value


def _stored_names(collection: str) -> dict[str, str]:
    """Python and stored spelling of every field to the stored one."""
    names: dict[str, str] = {}
    for name, info in COLLECTIONS[collection].document.model_fields.items():
        stored = info.serialization_alias or info.alias or name
        names |= {name: stored, stored: stored}
    return names
