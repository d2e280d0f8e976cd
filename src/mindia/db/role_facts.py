"""What a role of ours may see: the rows of one tenant at a time, or those of all."""

from __future__ import annotations

import attrs

from mindia.errors import RoleError


@attrs.frozen
class RoleFacts:
    """What a server says about the role that we are on it.

    Attributes:
        name: The role that statements of ours run as.
        role_setting: What the setting `role` of a connection is to begin with.
        is_superuser: Whether that role is one.
        bypasses_row_security: Whether it has the attribute `bypassrls`.
        owns_tables: Whether it owns Mindia's tables, itself or as a member.
        has_rights_of_worker: Whether it has the rights of a worker without taking on its role.
        worker_role: The role of `Settings.worker_role`, which calls that go across tenants take on.
        may_be_worker: Whether it may do so; None where there is no such role.
        worker_sees_all: Whether that role sees the rows of all tenants.
    """

    name: str
    role_setting: str
    is_superuser: bool
    bypasses_row_security: bool
    owns_tables: bool
    has_rights_of_worker: bool
    worker_role: str | None
    may_be_worker: bool | None
    worker_sees_all: bool

    @property
    def is_isolated(self) -> bool:
        """Whether row-level security holds our statements to the rows of one tenant."""
        return self.why_not_isolated is None

    @property
    def why_not_isolated(self) -> str | None:
        """Why row-level security does not hold our statements to one tenant, and the way out; None where it does."""
        if self.is_superuser:
            reason = "is a superuser"
        elif self.bypasses_row_security:
            reason = "has the attribute bypassrls"
        elif self.owns_tables:
            reason = "owns the tables"
        elif self.has_rights_of_worker:
            reason = "has the rights of a worker"
        else:
            return None
        return (
            f"the role {self.name!r} {reason}, so that row-level security does not hold it to one tenant: "
            "log in as a role of which grant_role() has made an application's, see docs/security.md"
        )

    def check_across_tenants(self) -> None:
        """Raise where a call that goes across tenants would see the rows of none.

        Raises:
            RoleError: The role sees one tenant at a time, and `Settings.worker_role` does not name one that sees all.
        """
        if self.worker_role is None:
            if self.is_isolated:
                raise RoleError(
                    f"the role {self.name!r} sees one tenant at a time, and this call goes across tenants: name a role "
                    "for that with Settings.worker_role, or connect as one, see docs/security.md"
                )
        elif self.may_be_worker is None:
            raise RoleError(f"there is no role {self.worker_role!r}, which Settings.worker_role names")
        elif not self.may_be_worker:
            raise RoleError(
                f"the role {self.name!r} may not take on the role {self.worker_role!r}, which Settings.worker_role "
                f"names: grant {self.worker_role} to {self.name} with inherit false, set true"
            )
        elif not self.worker_sees_all:
            raise RoleError(
                f"the role {self.worker_role!r}, which Settings.worker_role names, sees one tenant at a time: have the "
                f"owner of the tables run: select mindia.grant_role('{self.worker_role}', 'worker')"
            )
