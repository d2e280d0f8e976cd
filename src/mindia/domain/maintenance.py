"""Maintenance: what each step has found and done."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

import attrs


@attrs.frozen(kw_only=True)
class FoundObject:
    """An object, or an item, that a step of maintenance has come upon.

    Attributes:
        tenant_id: Whose it is.
        id: The item that it was, would have been, or still is.
        s3_bucket: The bucket; None for an item that is looked at as a row alone.
        s3_key: Where its bytes are, or the prefix of where they are; None where nothing is known of them.
    """

    tenant_id: UUID
    id: UUID
    s3_bucket: str | None
    s3_key: str | None


@attrs.frozen(kw_only=True)
class MaintenanceReport:
    """What a step has found, and what became of that; also how far it is, while it is under way.

    Attributes:
        found: How many were due.
        removed: How many of them are gone.
        failed: How many of them the object store has kept; they are on record and tried again later.
        is_dry_run: Whether it only looked.
        examples: The first 100 of those that were found.
        error: The last error of the object store, or None; logged, too.
    """

    found: int = 0
    removed: int = 0
    failed: int = 0
    is_dry_run: bool = False
    examples: tuple[FoundObject, ...] = attrs.field(default=(), repr=False)
    error: Exception | None = attrs.field(default=None, eq=False)


class Problem(StrEnum):
    """What `verify` finds wrong.

    `missing`: an item, or what was made of one, has no bytes. `wrong_size` and `wrong_hash`: its bytes are not those
    that were stored. `unreadable`: the object store fails over them, as a disk with a bad block does. `orphan`: bytes
    are on no record.
    """

    MISSING = "missing"
    WRONG_SIZE = "wrong_size"
    WRONG_HASH = "wrong_hash"
    UNREADABLE = "unreadable"
    ORPHAN = "orphan"


class Repair(StrEnum):
    """What `verify` may do about it.

    `restore` copies the bytes from another item of the tenant that has the same sha256, once they are known to be
    right. `remove_orphans` removes bytes that are on no record. `delete_items` deletes items whose bytes are missing or
    wrong and could not be restored, as their users would: webhooks are told. `remove_derivatives` removes what was made
    of items and is missing or wrong: a picture is made anew when it is asked for, a streaming form by its task.
    """

    RESTORE = "restore"
    REMOVE_ORPHANS = "remove_orphans"
    DELETE_ITEMS = "delete_items"
    REMOVE_DERIVATIVES = "remove_derivatives"


@attrs.frozen(kw_only=True)
class Finding:
    """Something that is wrong.

    Attributes:
        problem: What.
        tenant_id: Whose it is.
        media_id: The item; None for bytes that are nobody's, and for what was made of an item.
        s3_bucket: The bucket.
        s3_key: Where the bytes are, or should be.
        detail: For people.
        repair: What was done about it, or None.
    """

    problem: Problem
    tenant_id: UUID
    media_id: UUID | None
    s3_bucket: str
    s3_key: str
    detail: str
    repair: Repair | None = None


@attrs.frozen(kw_only=True)
class ProblemCount:
    """How often something is wrong.

    Attributes:
        problem: What.
        found: How often it was found.
        repaired: How many of these were repaired.
    """

    problem: Problem
    found: int
    repaired: int


@attrs.frozen(kw_only=True)
class VerifyReport:
    """What `verify` has looked at and found; also how far it is, while it is under way.

    Attributes:
        items_checked: Items whose bytes were looked for.
        items_hashed: Items of which all bytes were read.
        bytes_hashed: How many bytes that were.
        derivatives_checked: What was made of items, whose bytes were looked for.
        objects_checked: Objects whose record was looked for.
        objects_foreign: Objects of the tenants' buckets that are none of Mindia's; they are left alone.
        counts: How often each problem was found.
        findings: The first 1000 of them.
        next: Where to go on, for `verify(after=…)`, or None where all has been looked at.
        error: Why it ended early, as where the object store cannot be reached; or None.
    """

    items_checked: int = 0
    items_hashed: int = 0
    bytes_hashed: int = 0
    derivatives_checked: int = 0
    objects_checked: int = 0
    objects_foreign: int = 0
    counts: tuple[ProblemCount, ...] = ()
    findings: tuple[Finding, ...] = attrs.field(default=(), repr=False)
    next: str | None = None
    error: Exception | None = attrs.field(default=None, eq=False)

    @property
    def is_complete(self) -> bool:
        """Whether all has been looked at, together with the reports before this one."""
        return self.next is None and self.error is None

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong that was not repaired."""
        return all(count.found == count.repaired for count in self.counts)


@attrs.frozen(kw_only=True)
class CopyProblem:
    """An object that was not copied.

    Attributes:
        tenant_id: Whose it is.
        s3_bucket: The bucket.
        s3_key: Its key.
        detail: Why, for people.
    """

    tenant_id: UUID
    s3_bucket: str
    s3_key: str
    detail: str


@attrs.frozen(kw_only=True)
class CopyReport:
    """What was copied from one object store to another; also how far it is, while it is under way.

    Attributes:
        copied: Objects that were copied and read again; in a dry run, those that would be.
        bytes_copied: Their sizes together.
        already_there: Objects that the new store had.
        failed: Objects that were not copied, since they are damaged or a store fails over them.
        problems: The first 1000 of them.
        is_dry_run: Whether it only looked.
        next: Where to go on, for `copy_objects(after=…)`, or None where all has been looked at.
        error: Why it ended early, as where a store cannot be reached; or None.
    """

    copied: int = 0
    bytes_copied: int = 0
    already_there: int = 0
    failed: int = 0
    problems: tuple[CopyProblem, ...] = attrs.field(default=(), repr=False)
    is_dry_run: bool = False
    next: str | None = None
    error: Exception | None = attrs.field(default=None, eq=False)

    @property
    def is_complete(self) -> bool:
        """Whether all was looked at, together with the reports before this one, and nothing of it failed."""
        return self.next is None and self.error is None and not self.failed


@attrs.frozen(kw_only=True)
class VerifyStorage:
    """A task that does what `app.maintenance.verify` does, part by part; see there.

    Attributes:
        tenant_id: Only this tenant; None for all.
        hash_fraction: Of how many items all bytes are read, 0 to 1.
        repair: What is done about problems.
        objects: How many items and objects it looks at before it puts the rest into another task.
        after: Where it goes on.
    """

    tenant_id: UUID | None = None
    hash_fraction: float = 0.01
    repair: tuple[Repair, ...] = ()
    objects: int = 20_000
    after: str | None = None
