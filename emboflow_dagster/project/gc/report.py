"""What a collection did, in numbers and names."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

NAMES_SHOWN: Final = 1000


@dataclass(slots=True)
class GcReport:
    """What was kept and why, what was freed; names are of the asking workspace only.

    ``kept`` counts payloads by the first edge that keeps them. With ``dry_run`` it is what would be done.
    """

    dry_run: bool
    grace_s: float
    payloads: int = 0
    """Payloads that were there."""
    kept: Counter[str] = field(default_factory=Counter)
    freed_payloads: int = 0
    freed_bytes: int = 0
    orphans: int = 0
    """Of the freed: those that no version ever named."""
    tombstones: int = 0
    """Versions whose bytes are gone, in all workspaces."""
    let_go: int = 0
    """Versions that a retention rule or an expiry let go now; collected when the grace is over."""
    reclaimed: int = 0
    """Versions that a rule had let go, and lets go no more."""
    spared: int = 0
    """Payloads that somebody put or took up while they were being collected."""
    aborted_uploads: int = 0
    aborted_bytes: int = 0
    expired_uploads: int = 0
    """Announced uploads that were never completed."""
    expired_temporary: int = 0
    """Temporary blobs past their time; removed; their bytes go with a later collection."""
    archived_tails: int = 0
    notes: int = 0
    """Notes of writers that died."""
    cached: int = 0
    """Entries of the cache that are half a year old."""
    versions: list[str] = field(default_factory=list)
    """The versions of the asking workspace that were collected, at most a thousand."""

    def to_json(self) -> dict[str, Any]:
        """The report for ``--json``."""
        return {
            "dryRun": self.dry_run,
            "graceSeconds": self.grace_s,
            "payloads": self.payloads,
            "kept": dict(sorted(self.kept.items())),
            "freed": {"payloads": self.freed_payloads, "bytes": self.freed_bytes, "orphans": self.orphans},
            "tombstones": self.tombstones,
            "letGo": self.let_go,
            "reclaimed": self.reclaimed,
            "spared": self.spared,
            "uploads": {
                "aborted": self.aborted_uploads,
                "bytes": self.aborted_bytes,
                "expired": self.expired_uploads,
            },
            "expiredTemporary": self.expired_temporary,
            "archivedTails": self.archived_tails,
            "notes": self.notes,
            "cached": self.cached,
            "versions": self.versions,
        }
