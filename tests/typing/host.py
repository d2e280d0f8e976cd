"""A small host, read by type checkers alone: the package is typed for those who install it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import attrs

import mindia
from mindia import Image, Library, Media, SearchResults, Settings, Task, TaskContext, Tenant


@attrs.frozen
class Resize:
    """A task of the host's."""

    media_id: UUID
    width: int


def resize(context: TaskContext, task: Resize) -> str:
    image: Image = context.library.media.get(task.media_id, type=Image)
    return f"{image.width} x {image.height}"


def main() -> None:
    with mindia.connect(
        "dbname=shop", storage=mindia.LocalStorage("objects"), settings=Settings(poll=timedelta(seconds=2))
    ) as app:
        tenant: Tenant = app.tenants.create("Acme")
        library: Library = app.library(tenant)
        item: Media = library.media.add("cat.jpg", metadata={"place": "Lisbon", "tags": ["cat", 1, None]})
        results: SearchResults = library.search("cats", kind="image", limit=5)
        names: list[str] = [result.media.filename for result in results]
        app.register_task("resize", Resize, resize)
        task: Task = library.tasks.enqueue(Resize(item.id, width=len(names)))
        with library.transaction() as transaction:
            transaction.connection.execute("select 1")
            transaction.media.update(item, description=str(task.id))


if __name__ == "__main__":
    main()
