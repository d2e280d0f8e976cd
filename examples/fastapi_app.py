"""A service that keeps its customers' media: FastAPI, with an API key for each customer.

    pip install 'mindia[all]' fastapi uvicorn
    python fastapi_app.py                  # makes a customer, and prints a key
    uvicorn --factory fastapi_app:service

A home of its own in ./media-home, or the server that DATABASE_URL names with objects in ./objects. Workers, which embed
and send webhooks, are processes of their own: `mindia --home ./media-home worker`.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

import mindia
from mindia import Media, aio
from mindia.errors import MindiaError
from mindia.request_logging import AsyncRequestLogMiddleware
from mindia.serving import AsyncMediaFiles

_bearer = HTTPBearer()


def make_api(app: mindia.Mindia) -> FastAPI:
    """Return the service over an application, which is closed together with it.

    Args:
        app: With `Settings.secret_key`, and with `Settings.public_url` where the service serves the objects itself.
    """
    media_layer = aio.AsyncMindia(app)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with media_layer:
            yield

    api = FastAPI(title="Media", lifespan=lifespan)
    api.add_middleware(
        AsyncRequestLogMiddleware, mindia=app, tenant=lambda scope: scope.get("state", {}).get("tenant_id")
    )
    api.mount("/files", AsyncMediaFiles(app))

    async def customer(
        request: Request, sent: Annotated[HTTPAuthorizationCredentials, Depends(_bearer)]
    ) -> aio.AsyncLibrary:
        key = await media_layer.api_keys.verify(sent.credentials)
        request.state.tenant_id = key.tenant_id
        return media_layer.library(key.tenant_id, user=key)  # may do what the role of the key allows, and no more

    Library = Annotated[aio.AsyncLibrary, Depends(customer)]  # noqa: N806 - a type

    @api.exception_handler(MindiaError)
    async def refuse(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, MindiaError)
        seen = str(error) if error.http_status < 500 else "try again later" if error.retryable else "a defect of ours"
        return JSONResponse({"code": error.code, "error": seen}, status_code=error.http_status)

    @api.post("/media", status_code=201)
    async def add(library: Library, request: Request, filename: str) -> dict[str, Any]:
        return _shown(await library.media.add(request.stream(), filename=filename))

    @api.get("/media")
    async def find(library: Library, after: str | None = None, limit: int = 20) -> dict[str, Any]:
        page = await library.media.find(limit=limit, after=after)
        return {"items": [_shown(item) for item in page.items], "next": page.next}

    @api.get("/media/{media_id}")
    async def get(library: Library, media_id: UUID) -> dict[str, Any]:
        item = await library.media.get(media_id)
        return _shown(item) | {"url": await library.media.url(item)}

    @api.delete("/media/{media_id}", status_code=204)
    async def delete(library: Library, media_id: UUID) -> Response:
        await library.media.delete(media_id)
        return Response(status_code=204)

    @api.get("/search")
    async def search(library: Library, q: str) -> list[dict[str, Any]]:
        return [_shown(result.media) | {"score": result.score} for result in await library.search(q)]

    @api.post("/uploads", status_code=201)
    async def begin_upload(library: Library, filename: str, max_bytes: int) -> dict[str, Any]:
        upload = await library.media.begin_upload(filename, max_bytes=max_bytes)
        return {"id": upload.id, "url": upload.url, "fields": dict(upload.fields)}

    @api.post("/uploads/{upload_id}/complete", status_code=201)
    async def complete_upload(library: Library, upload_id: UUID) -> dict[str, Any]:
        return _shown(await library.media.add(await library.media.complete_upload(upload_id)))

    @api.post("/webhooks", status_code=201)
    async def register_webhook(library: Library, url: str, events: list[str]) -> dict[str, Any]:
        issued = await library.webhooks.register(url, events=events)
        return {"id": issued.webhook.id, "secret": issued.secret}  # it is not shown again

    return api


def _shown(item: Media) -> dict[str, Any]:
    return {"id": item.id, "filename": item.filename, "content_type": item.content_type, "size": item.file_size}


def open_app() -> mindia.Mindia:
    """Return the application over a home of its own, or over the server that DATABASE_URL names."""
    settings = mindia.Settings(public_url=os.environ.get("PUBLIC_URL", "http://127.0.0.1:8000/files"))
    if url := os.environ.get("DATABASE_URL"):
        storage = mindia.LocalStorage("./objects")
        return mindia.connect(url, storage=storage, secret_key=os.environ["SECRET_KEY"], settings=settings)
    return mindia.local("./media-home", settings=settings)


def service() -> FastAPI:
    """Return the service, for `uvicorn --factory`."""
    return make_api(open_app())


if __name__ == "__main__":
    with open_app() as opened:
        opened.migrate()
        issued = opened.library(opened.tenants.create("Acme")).api_keys.issue("first", role="admin")
        print(issued.token)
