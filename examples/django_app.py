"""A shop with Django: an order and its picture are committed together, on the connection of the request.

    pip install 'mindia[all]' django
    DATABASE_URL=postgresql://… SECRET_KEY=… python django_app.py           # makes the tables
    DATABASE_URL=postgresql://… SECRET_KEY=… python django_app.py runserver  # http://127.0.0.1:8000/orders

In a project settings, model, views and `wsgi.py` are files of their own; what has to do with Mindia stays as it is.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import execute_from_command_line
from django.db import connection, models, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from psycopg.conninfo import conninfo_to_dict

import mindia
from mindia.errors import MindiaError
from mindia.request_logging import RequestLogMiddleware
from mindia.serving import MediaFiles

url = conninfo_to_dict(os.environ["DATABASE_URL"])
settings.configure(
    SECRET_KEY=os.environ["SECRET_KEY"],
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    WSGI_APPLICATION=f"{__name__}.application",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": url.get("dbname"), "USER": url.get("user"), "PASSWORD": url.get("password"),
            "HOST": url.get("host"), "PORT": url.get("port"),
        }
    },
)  # fmt: skip
django.setup()

# Nothing is opened before the first request, so that servers may fork.
media_layer = mindia.connect(
    os.environ["DATABASE_URL"],
    storage=mindia.LocalStorage("./objects"),
    secret_key=os.environ["SECRET_KEY"],
    settings=mindia.Settings(public_url=os.environ.get("PUBLIC_URL", "http://127.0.0.1:8000/files")),
)


class Order(models.Model):  # type: ignore[misc]  # Django ships no types
    """What somebody has ordered, with the picture to be printed."""

    title = models.CharField(max_length=100)
    picture_id = models.UUIDField()

    class Meta:
        """In a project Django knows the application by itself."""

        app_label = "shop"


def orders(request: HttpRequest) -> HttpResponse:
    """List the orders, or make one of a form with `title` and the file `picture`."""
    library = media_layer.library()
    try:
        if request.method == "POST":
            upload = request.FILES["picture"]
            staged = library.media.stage(upload, filename=upload.name)  # outside: it holds no connection
            with transaction.atomic():
                with library.transaction(connection=connection.connection) as tx:
                    picture = tx.media.add(staged)
                order = Order.objects.create(title=request.POST["title"], picture_id=picture.id)
            return JsonResponse({"id": order.pk, "picture": picture.id}, status=201)
        found = [
            {"id": order.pk, "title": order.title, "url": library.media.url(order.picture_id)}
            for order in Order.objects.order_by("pk")
        ]
        return JsonResponse({"orders": found})
    except MindiaError as error:
        return JsonResponse({"code": error.code, "error": str(error)}, status=error.http_status)


urlpatterns = [path("orders", orders)]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """Answer a request: files by their signed URLs, everything else by Django; all of them are logged."""
    return _logged(environ, start_response)


def _route(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    serve = _files if environ["PATH_INFO"].startswith("/files/") else _django
    return serve(environ, start_response)


_django, _files = WSGIHandler(), MediaFiles(media_layer)
_logged = RequestLogMiddleware(_route, mindia=media_layer)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.modules["django_app"] = sys.modules["__main__"]
        execute_from_command_line([sys.argv[0], *sys.argv[1:], "--noreload"])
    else:
        media_layer.migrate()
        media_layer.tenants.create("Shop")
        with connection.schema_editor() as editor:
            editor.create_model(Order)
        media_layer.close()
