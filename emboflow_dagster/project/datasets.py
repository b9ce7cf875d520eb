"""Datasets and their versions, as a project sees them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emboflow_dagster.errors import ConflictError, NotFoundError
from emboflow_dagster.model.artifact import Artifact
from emboflow_dagster.model.base import new_id, utc_now
from emboflow_dagster.model.dataset import Dataset, DatasetVersion
from emboflow_dagster.mongo import audit
from emboflow_dagster.mongo.client import Session
from emboflow_dagster.mongo.documents import Documents
from emboflow_dagster.project.dataset_changes import Change
from emboflow_dagster.project.dataset_content import export, opened_content
from emboflow_dagster.project.evidence import MAX_ROWS, Evidence
from emboflow_dagster.project.gc.letting_go import check_reason
from emboflow_dagster.project.lookup import by_id_or_name
from emboflow_dagster.project.opened import Opened
from emboflow_dagster.project.policies import all_policies_of, episodes_of, policies_of, trained


class Datasets:
    """The datasets of one project."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self.documents: Documents[Dataset] = Documents(opened.mongo, opened.scope, Dataset)
        self._versions: Documents[DatasetVersion] = Documents(opened.mongo, opened.scope, DatasetVersion)

    def create(self, name: str, *, type: str) -> Dataset:  # noqa: A002 - the contract's word
        """A new dataset without versions.

        Raises:
            AlreadyExistsError: The name is taken in this project.
            InvalidInputError: The name is no slug or the type no type name.
        """
        now = utc_now()
        scope = self._opened.scope
        dataset = Dataset.checked(
            id=new_id("ds"),
            workspace_id=scope.workspace_id,
            project_id=scope.project_id,
            name=name,
            type=type,
            created_by=scope.actor,
            created_at=now,
            updated_at=now,
        )

        def body(session: Session) -> None:
            self.documents.insert(dataset, session=session)
            after = {"name": name, "type": type}
            audit.record(
                self._opened.mongo, scope, session, "dataset.create", "datasets", dataset.id, after=after
            )

        self._opened.mongo.in_transaction(body)
        return dataset

    def get(self, dataset: str) -> Dataset:
        """A dataset by name or id.

        Raises:
            NotFoundError: There is none in this project.
        """
        return by_id_or_name(self.documents, dataset, "name", what="dataset")

    def versions(self, dataset: str, *, limit: int = 100) -> list[DatasetVersion]:
        """A dataset's versions, newest first."""
        return self._versions.find({"datasetId": self.get(dataset).id}, limit=limit)

    def version(self, dataset: str, tag: str | None = None) -> DatasetVersion:
        """One version by tag or id, by default the latest.

        Raises:
            NotFoundError: The dataset has no such version.
        """
        found = self.get(dataset)
        if tag is None:
            version = (
                self._versions.find_one({"_id": found.latest_version_id}) if found.latest_version_id else None
            )
        else:
            version = self._versions.find_one(
                {"datasetId": found.id, "$or": [{"versionTag": tag}, {"_id": tag}]}
            )
        if version is None:
            tags = [v.version_tag for v in self.versions(found.id, limit=5)]
            raise NotFoundError(
                f"dataset {found.name}: no version {tag or ''}".rstrip(),
                hint=f"there are: {', '.join(tags)}" if tags else "it has no version yet",
            )
        return version

    def manifest(self, version: DatasetVersion) -> dict[str, Any]:
        """A version's manifest as it is stored, read and verified.

        Its ``tree`` names the first page of the episodes (:meth:`episodes` reads them); versions of the older
        layout have none, and all their files under ``files``.

        Raises:
            IntegrityError: Its bytes are gone or changed.
        """
        return json.loads(self._opened.blobs.read_ref(version.manifest_ref))

    def episodes(self, dataset: str, tag: str | None = None) -> Iterator[dict[str, Any]]:
        """Every episode of a version in order.

        Each is a dict: ``episode`` (its place), ``id``, ``content`` (a hash of its data), ``length`` in
        frames, ``tasks``, ``source``, ``t0Ns``, ``success``, ``flags``, ``sync``, ``stats`` and ``files``.
        Read page by page, so that a version of any size needs little memory.

        Raises:
            NotFoundError: There is no such dataset or version.
            IntegrityError: A page is missing or damaged.
        """
        with opened_content(self._opened, self.version(dataset, tag)) as content:
            for one in content.episodes():
                yield {"episode": one.index, **one.entry}

    def policies(
        self, dataset: str, episode: str | None = None, tag: str | None = None
    ) -> list[dict[str, Any]]:
        """Training configs of the project that list an episode, newest first, one dict each.

        Each has ``artifactId``, ``runId``, ``node``, ``policy``, ``versionSha256``, ``madeAt``;
        ``episode`` (its place) and ``by`` (``content``: the same data; ``id``: it was changed since). Without
        an episode those that list any of the version, with ``same``, ``changed`` and ``listed``: how many.

        Raises:
            NotFoundError: No such dataset, version or episode.
        """
        version = self.version(dataset, tag)
        if episode is None:
            return all_policies_of(self._opened, version)
        return policies_of(self._opened, version, episode)

    def trained(self) -> list[Artifact]:
        """The training configs of the project, newest first."""
        return trained(self._opened)

    def seen(self, training_config: Artifact) -> list[dict[str, Any]]:
        """The episodes that a training config lists, in their order: ``episode``, ``id``, ``content``."""
        return episodes_of(self._opened, training_config)

    def evidence(
        self,
        dataset: str,
        tag: str | None = None,
        *,
        check: str | None = None,
        episode: str | None = None,
        verdict: str | None = None,
        consumers: Mapping[str, Any] | None = None,
        limit: int = MAX_ROWS,
    ) -> list[dict[str, Any]]:
        """What the newest quality report of a version measured, one dict a measurement.

        Each has ``subject``, ``check``, ``checkVersion``, ``metric``, ``value``, ``unit``, ``episode``,
        ``episodeSha256`` (the episode's ``content``), ``feature``, ``n``, ``startFrame``, ``endFrame``,
        ``startNs``, ``endNs``, ``threshold``, ``verdict`` and ``verdicts`` (by consumer).

        Args:
            dataset: Name or id.
            tag: Version; by default the latest.
            check: Only this check.
            episode: Only this episode: its number, or the sha256 of its content.
            verdict: Only what was judged so: ``fail``, ``warn``, ``pass``, ``info``.
            consumers: Consumer to thresholds (check to metric to ``{"warn", "fail"}``), judged now;
                ``standard`` stands for the verdict itself. By default the verdicts of the report.
            limit: Rows, at most 10,000.

        Raises:
            NotFoundError: No such dataset or version, or nobody measured it.
        """
        version, evidence = self.version(dataset, tag), Evidence(self._opened)
        reports = evidence.reports(version)
        if not reports:
            raise NotFoundError(
                f"dataset {dataset} {version.version_tag}: no quality report of it",
                hint="put a quality-report node after the node that made the package",
            )
        return evidence.of(
            reports[0],
            check=check, episode=episode, verdict=verdict, consumers=consumers, limit=limit,
        )  # fmt: skip

    def diff(self, dataset: str, from_: str | None = None, to: str | None = None) -> dict[str, Any]:
        """What differs between two versions, episode by episode.

        Args:
            dataset: Name or id.
            from_: Tag or id of a version, or ``DATASET:TAG``; by default the one that ``to`` was built on.
            to: Likewise; by default the latest version.

        Returns:
            As :func:`emboflow_dagster.project.dataset_diff.diff` says; and ``annotations``: what becomes of
            those that are valid at ``from``: ``counts``, and ``rows`` of the first 100 that are not any more.

        Raises:
            NotFoundError: There is no such version, or ``to`` has none before it.
            IntegrityError: Bytes of a version are missing or damaged.
        """
        from emboflow_dagster.project.annotation_carry import Carry, told
        from emboflow_dagster.project.dataset_diff import diff

        a, b = self.pair(dataset, from_, to)
        found = diff(self._opened, (self.get(a.dataset_id), a), (self.get(b.dataset_id), b))
        return {**found, "annotations": told(Carry(self._opened).between(a, b))}

    def pair(
        self, dataset: str, from_: str | None = None, to: str | None = None
    ) -> tuple[DatasetVersion, DatasetVersion]:
        """The two versions that :meth:`diff` compares.

        Raises:
            NotFoundError: There is no such version, or ``to`` has none before it.
        """
        b = self._named(dataset, to)
        if from_ is None and b.parent_version_id is None:
            raise NotFoundError(
                f"version {b.version_tag} is the first one: there is none before it",
                hint="name the version to compare it with",
            )
        return (self._named(dataset, from_) if from_ else self._versions.get(str(b.parent_version_id))), b

    def _named(self, dataset: str, version: str | None) -> DatasetVersion:
        other, colon, tag = (version or "").rpartition(":")
        return self.version(other, tag or None) if colon else self.version(dataset, version)

    def edit(
        self,
        dataset: str,
        changes: Sequence[Change],
        *,
        reason: str | None = None,
        base: str | None = None,
        tag: str | None = None,
    ) -> DatasetVersion:
        """Make the next version of a dataset out of its latest one; that one stays as it is.

        Args:
            dataset: Name or id.
            changes: ``Delete``, ``Relabel``, ``Trim``, ``Split``, ``Merge`` of
                :mod:`emboflow_dagster.project.dataset_changes`; places of episodes are those before the edit.
            reason: Why, for the version's summary and the audit log.
            base: Tag or id that the latest version must have: who looked at another one changes nothing.
            tag: The new version's tag; by default the next number.

        Returns:
            The new version; its ``summary.edit`` says what was done.

        Raises:
            InvalidInputError: A change is not allowed, an episode is not there, or none would be left.
            NotFoundError: There is no such dataset or version.
            ConflictError: The latest version is not ``base``, or another one came meanwhile.
        """
        from emboflow_dagster.project import dataset_changes, dataset_edits

        dataset_changes.check(changes)
        latest = self._latest(dataset, base)
        merged = [self.version(c.dataset, c.tag) for c in changes if isinstance(c, dataset_changes.Merge)]
        why = None if reason is None else check_reason(reason)
        found = self.get(dataset)
        return dataset_edits.edit(self._opened, found, latest, changes, merged, reason=why, tag=tag)

    def undo(
        self, dataset: str, *, reason: str | None = None, base: str | None = None, tag: str | None = None
    ) -> DatasetVersion:
        """The next version holds what the dataset held before its newest edit that stands.

        Repeated, what it held before the edit before that. Only a manifest is stored.

        Raises:
            TransitionError: There is no edit to undo.
            ConflictError: As :meth:`edit`.
        """
        from emboflow_dagster.project.dataset_undo import before_last_edit

        latest = self._latest(dataset, base)
        found = self._versions.find({"datasetId": latest.dataset_id}, limit=0)
        target = before_last_edit({v.id: v for v in found}, latest)
        return self._restored(dataset, latest, target, "undo", reason, tag)

    def restore(
        self,
        dataset: str,
        version: str,
        *,
        reason: str | None = None,
        base: str | None = None,
        tag: str | None = None,
    ) -> DatasetVersion:
        """The next version holds what an older one holds. Only a manifest is stored.

        Raises:
            NotFoundError: There is no such version.
            TransitionError: It was withdrawn.
            ConflictError: As :meth:`edit`.
        """
        latest = self._latest(dataset, base)
        return self._restored(dataset, latest, self.version(dataset, version), "restore", reason, tag)

    def forget(
        self,
        dataset: str,
        episodes: Sequence[int | str],
        *,
        reason: str,
        base: str | None = None,
        dry_run: bool = False,
        with_source: bool = False,
    ) -> dict[str, Any]:
        """Forget episodes everywhere in the project; their bytes are destroyed at once, without a grace.

        Every version of every dataset that has them (by id, by data, by the recording they were made of) is
        withdrawn, the newest ones have a successor without them; artifacts made of them and what annotations
        say of them are destroyed, cached results let go. Interrupted, it is finished by the next call.

        Args:
            dataset: Name or id.
            episodes: Places in its latest version (from 0) or ids.
            reason: Why, for the tombstone and the audit log.
            base: Tag or id that the latest version must have.
            dry_run: Only say what would be done.
            with_source: Also destroy the recording, if no other episode comes from it.

        Returns:
            The tombstone: what was destroyed, with hashes and sizes, when, by whom, why. With ``dry_run`` the
            plan, of the same form.

        Raises:
            NotFoundError: There is no such dataset or version.
            InvalidInputError: An episode is not there, or the recording was registered in place.
            ForbiddenError: Something of it is under legal hold (kind `legal-hold`); nothing was done.
            ConflictError: The latest version is not ``base``; other episodes come from the recording; or
                payloads are being written just now: say it again.
        """
        from emboflow_dagster.project.dataset_changes import Delete, check
        from emboflow_dagster.project.forget.acting import Forgetting

        check([Delete(episodes)])
        latest = self._latest(dataset, base)
        return Forgetting(self._opened).forget(
            self.get(dataset),
            latest,
            episodes,
            reason=check_reason(reason),
            dry_run=dry_run,
            with_source=with_source,
        )

    def forgotten(self) -> list[dict[str, Any]]:
        """The tombstones of all that was forgotten in the project, oldest first."""
        from emboflow_dagster.project.forget.acting import Forgetting

        return Forgetting(self._opened).tombstones()

    def tombstone(self, tombstone: str) -> dict[str, Any]:
        """One of :meth:`forgotten` with ``proof``: what it claims, held against what is there now.

        Returns:
            The tombstone; each row of ``proof`` has ``what``, ``ok`` and ``found``.

        Raises:
            NotFoundError: There is no such tombstone in the project.
            ConflictError: The forgetting is not finished.
        """
        from emboflow_dagster.project.forget.proving import note_of, proof, told

        note = note_of(self._opened, tombstone)
        return {**told(self._opened, note), "proof": proof(self._opened, note)}

    def reinstate(self, tombstone: str, *, reason: str) -> dict[str, Any]:
        """Let what was forgotten be made again; nothing comes back by itself, and the tombstone stays.

        Args:
            tombstone: The ``id`` of one of :meth:`forgotten`.
            reason: Why, for the audit log.

        Raises:
            NotFoundError: There is no such tombstone in the project.
            ConflictError: The forgetting is not finished.
        """
        from emboflow_dagster.project.forget.reinstating import reinstate

        return reinstate(self._opened, tombstone, check_reason(reason))

    def _restored(
        self,
        dataset: str,
        latest: DatasetVersion,
        target: DatasetVersion,
        kind: str,
        reason: str | None,
        tag: str | None,
    ) -> DatasetVersion:
        from emboflow_dagster.project.dataset_undo import restore

        why = None if reason is None else check_reason(reason)
        found = self.get(dataset)
        return restore(self._opened, found, latest, target, kind=kind, reason=why, tag=tag)

    def _latest(self, dataset: str, base: str | None) -> DatasetVersion:
        latest = self.version(dataset)
        if base is not None and base not in (latest.version_tag, latest.id):
            raise ConflictError(
                f"the latest version is {latest.version_tag}, not {base}; nothing was changed",
                hint="look at the newer version and repeat it",
            )
        return latest

    def export(self, dataset: str, out: Path, *, tag: str | None = None) -> Path:
        """Write a version as the documented folder, each byte verified; returns the folder.

        ``manifest.json`` comes last, so a folder that has one is complete. What the version was made of is in
        ``version/``: with it the folder is checked without a database
        (:func:`~emboflow_dagster.formats.canonical.checking.check_folder`).

        Raises:
            NotFoundError: There is no such dataset or version.
            IntegrityError: A byte is missing or differs.
        """
        version = self.version(dataset, tag)
        (out / "manifest.json").unlink(missing_ok=True)  # until all of it is there
        export(self._opened, version, out)
        return out

    def deliver(
        self,
        dataset: str,
        output: str,
        *,
        tag: str | None = None,
        format: str = "canonical",  # noqa: A002 - the contract's word
        environment_state: str | None = None,
        say: Callable[[str], None] = lambda _text: None,
    ) -> dict[str, Any]:
        """Write a version as a package: README, checksums and the version's hashes inside, checked, whole.

        Args:
            dataset: Name or id.
            output: A folder, a name that ends with `.tar`, `.tar.gz` or `.zip`, or `s3://bucket/prefix`.
            tag: Tag or id of the version; by default the latest one.
            format: `canonical`, `lerobot-v3.0`, `rlds`, `mcap` or `rrd`.
            environment_state: LeRobot: a feature delivered as `observation.environment_state` too.
            say: Told what is going on.

        Returns:
            ``output``, ``kind`` (folder, tar, tar.gz, zip), ``format``, ``files``, ``bytes``, ``episodes``,
            ``frames``, ``versionSha256``, ``treeSha256``, ``features``.

        Raises:
            NotFoundError: There is no such dataset or version.
            InvalidInputError: The version cannot have the format, or the output holds other things.
            ConflictError: Somebody else exports to the same output now.
            IntegrityError: A byte is missing or differs.
        """
        from emboflow_dagster.project.dataset_export import deliver

        version = self.version(dataset, tag)
        head = self.get(version.dataset_id)
        return deliver(
            self._opened, head, version, output, form=format, environment_state=environment_state, say=say
        )

    def list(self, *, limit: int = 100) -> list[Dataset]:
        """Datasets, newest first."""
        return self.documents.find(limit=limit)
