"""Transformations with a name: `library.presets`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from mindia._handles import Handle
from mindia.db.session import Session
from mindia.domain.media import Image
from mindia.domain.operations import Operation
from mindia.domain.transformations import ImageFormat, Preset, Quality, Transformation, check_preset_name
from mindia.errors import ConflictError, InvalidError, NotFoundError
from mindia.repositories import media as media_repository
from mindia.repositories import presets as repository
from mindia.services.context import TenantContext

_MAX_DEPTH = 10


class Presets(Handle):
    """The named transformations of one tenant. Thread-safe, unless it is that of a transaction.

    Through a library that is bound to a user, everybody may read them, and an admin may change them.
    """

    def __init__(self, context: TenantContext) -> None:
        self._context = context

    def create(
        self,
        name: str,
        *operations: Operation | Transformation,
        preset: str | None = None,
        format: ImageFormat | str | None = None,  # noqa: A002 - of the public interface
        quality: int | Quality | str | None = None,
        background: str | None = None,
        animated: bool | None = None,
    ) -> Preset:
        """Give a transformation a name.

        Args:
            name: 1 to 64 small letters, digits and hyphens.
            operations: What it does, one after the other.
            preset: Another preset that it goes on from.
            format: As for `library.media.derive`; what is left out is told by whoever uses it, or as it is by default.
            quality: The same.
            background: The same.
            animated: The same.

        Raises:
            InvalidError: An argument is not allowed, or it names itself.
            NotFoundError: There is no such preset to go on from, or no such image for a watermark.
            AlreadyExistsError: There is a preset of this name.
            PermissionDeniedError: The user of the library is no admin.
        """
        context = self._context
        made = Transformation.of(
            *operations, preset=preset, format=format, quality=quality, background=background, animated=animated
        )
        check_preset_name(name)

        def work(session: Session) -> Preset:
            there = repository.get(session, context.tenant_id, name) if session.repeated else None
            if there is not None and there.transformation == made:
                return there
            repository.lock(session, context.tenant_id)  # the one that it goes on from stays
            self._check(session, name, made)
            return repository.create(session, context.tenant_id, name, made)

        return context.as_admin.run(work)

    def update(
        self,
        name: str,
        *operations: Operation | Transformation,
        preset: str | None = None,
        format: ImageFormat | str | None = None,  # noqa: A002 - of the public interface
        quality: int | Quality | str | None = None,
        background: str | None = None,
        animated: bool | None = None,
    ) -> Preset:
        """Have a preset do something else. What was made by it before stays as it is, and is not found by it any more.

        Args:
            name: Its name.
            operations: What it does from now on, all of it.
            preset: As for `create`.
            format: As for `create`.
            quality: As for `create`.
            background: As for `create`.
            animated: As for `create`.

        Raises:
            InvalidError: An argument is not allowed, or it names itself, be it by way of others.
            NotFoundError: There is no such preset, or no such image for a watermark.
            PermissionDeniedError: The user of the library is no admin.
        """
        context = self._context
        made = Transformation.of(
            *operations, preset=preset, format=format, quality=quality, background=background, animated=animated
        )
        check_preset_name(name)

        def work(session: Session) -> Preset:
            repository.lock(session, context.tenant_id)
            self._check(session, name, made)
            return _found(repository.update(session, context.tenant_id, name, made), name)

        return context.as_admin.run(work)

    def get(self, name: str) -> Preset:
        """Return a preset.

        Raises:
            NotFoundError: There is none of this name.
        """
        context = self._context
        check_preset_name(name)
        return _found(
            context.as_viewer.run(lambda session: repository.get(session, context.tenant_id, name), single=True), name
        )

    def list(self) -> Sequence[Preset]:
        """Return all presets, by their names."""
        context = self._context
        return tuple(context.as_viewer.run(lambda session: repository.all_of(session, context.tenant_id), single=True))

    def delete(self, name: str) -> None:
        """Remove a preset. What was made by it stays.

        Raises:
            NotFoundError: There is none of this name.
            ConflictError: Another preset goes on from it.
            PermissionDeniedError: The user of the library is no admin.
        """
        context = self._context
        check_preset_name(name)

        def work(session: Session) -> None:
            repository.lock(session, context.tenant_id)
            others = [each.name for each in repository.all_of(session, context.tenant_id)
                      if each.transformation.preset == name]  # fmt: skip
            if others:
                raise ConflictError(f"the preset {others[0]!r} goes on from {name!r}: change or delete that first")
            if not repository.delete(session, context.tenant_id, name) and not session.repeated:
                raise NotFoundError(f"there is no preset {name!r}")

        context.as_admin.run(work)

    def _check(self, session: Session, name: str, made: Transformation) -> None:
        whole = resolved(session, self._context.tenant_id, made, seen=(name,))
        for image_id in whole.watermarks:
            watermark_of(session, self._context.tenant_id, image_id)
        whole.settled()


def resolved(
    session: Session, tenant_id: UUID, transformation: Transformation, *, seen: tuple[str, ...] = ()
) -> Transformation:
    """Return a transformation with what its presets do in place of their names.

    Raises:
        NotFoundError: There is no such preset.
        InvalidError: They go round in circles.
    """
    while (name := transformation.preset) is not None:
        if name in seen:
            raise InvalidError(f"the preset {name!r} names itself: {' -> '.join([*seen, name])}")
        seen = (*seen, name)
        if len(seen) > _MAX_DEPTH:
            raise InvalidError(f"presets go on from one another {_MAX_DEPTH} times at most: {' -> '.join(seen)}")
        transformation = transformation.after(_found(repository.get(session, tenant_id, name), name).transformation)
    return transformation


def watermark_of(session: Session, tenant_id: UUID, image_id: UUID) -> Image:
    """Return the image of a watermark.

    Raises:
        NotFoundError: The tenant has no such image.
    """
    found = media_repository.get(session, tenant_id, image_id)
    if not isinstance(found, Image):
        raise NotFoundError(f"there is no image {image_id} for a watermark")
    return found


def _found(preset: Preset | None, name: str) -> Preset:
    if preset is None:
        raise NotFoundError(f"there is no preset {name!r}")
    return preset
