"""The media layer that Python applications import."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from mindia._version import __version__ as __version__

if _TYPE_CHECKING:
    from mindia import errors as errors
    from mindia.app import Mindia as Mindia
    from mindia.app import connect as connect
    from mindia.app import local as local
    from mindia.config import Settings as Settings
    from mindia.delivery.signing import WebhookMessage as WebhookMessage
    from mindia.delivery.signing import verify_webhook as verify_webhook
    from mindia.describing.base import Picture as Picture
    from mindia.describing.function import FunctionDescriber as FunctionDescriber
    from mindia.describing.metadata import MetadataDescriber as MetadataDescriber
    from mindia.describing.openai_compatible import OpenAICompatibleDescriber as OpenAICompatibleDescriber
    from mindia.domain.analytics import RequestCount as RequestCount
    from mindia.domain.analytics import RequestGroup as RequestGroup
    from mindia.domain.analytics import RequestLog as RequestLog
    from mindia.domain.analytics import RequestLogBuffer as RequestLogBuffer
    from mindia.domain.analytics import RequestOrder as RequestOrder
    from mindia.domain.analytics import RequestStats as RequestStats
    from mindia.domain.analytics import RequestSummary as RequestSummary
    from mindia.domain.analytics import StorageStats as StorageStats
    from mindia.domain.analytics import TaskStats as TaskStats
    from mindia.domain.analytics import TimeStep as TimeStep
    from mindia.domain.archives import ExportReport as ExportReport
    from mindia.domain.archives import ImportReport as ImportReport
    from mindia.domain.archives import MissingDerivative as MissingDerivative
    from mindia.domain.bulk import AddReport as AddReport
    from mindia.domain.bulk import AddResult as AddResult
    from mindia.domain.bulk import DeleteReport as DeleteReport
    from mindia.domain.bulk import DeleteResult as DeleteResult
    from mindia.domain.bulk import MediaInput as MediaInput
    from mindia.domain.bulk import Progress as Progress
    from mindia.domain.derivatives import Derivative as Derivative
    from mindia.domain.filters import Between as Between
    from mindia.domain.filters import Contains as Contains
    from mindia.domain.filters import Exists as Exists
    from mindia.domain.filters import MediaOrder as MediaOrder
    from mindia.domain.index_stats import IndexStats as IndexStats
    from mindia.domain.index_stats import SpaceStats as SpaceStats
    from mindia.domain.maintenance import CopyReport as CopyReport
    from mindia.domain.maintenance import Finding as Finding
    from mindia.domain.maintenance import MaintenanceReport as MaintenanceReport
    from mindia.domain.maintenance import Problem as Problem
    from mindia.domain.maintenance import Repair as Repair
    from mindia.domain.maintenance import VerifyReport as VerifyReport
    from mindia.domain.maintenance import VerifyStorage as VerifyStorage
    from mindia.domain.media import Audio as Audio
    from mindia.domain.media import Candidate as Candidate
    from mindia.domain.media import Disposition as Disposition
    from mindia.domain.media import Document as Document
    from mindia.domain.media import Image as Image
    from mindia.domain.media import Location as Location
    from mindia.domain.media import Media as Media
    from mindia.domain.media import MediaKind as MediaKind
    from mindia.domain.media import MediaPage as MediaPage
    from mindia.domain.media import OnDuplicate as OnDuplicate
    from mindia.domain.media import ProcessingStatus as ProcessingStatus
    from mindia.domain.media import Staged as Staged
    from mindia.domain.media import Video as Video
    from mindia.domain.operations import Blur as Blur
    from mindia.domain.operations import Brightness as Brightness
    from mindia.domain.operations import Contrast as Contrast
    from mindia.domain.operations import Crop as Crop
    from mindia.domain.operations import Direction as Direction
    from mindia.domain.operations import Fit as Fit
    from mindia.domain.operations import Flip as Flip
    from mindia.domain.operations import Grayscale as Grayscale
    from mindia.domain.operations import Invert as Invert
    from mindia.domain.operations import Position as Position
    from mindia.domain.operations import Resize as Resize
    from mindia.domain.operations import Rotate as Rotate
    from mindia.domain.operations import Saturation as Saturation
    from mindia.domain.operations import Sepia as Sepia
    from mindia.domain.operations import Sharpen as Sharpen
    from mindia.domain.operations import SmartCrop as SmartCrop
    from mindia.domain.operations import Watermark as Watermark
    from mindia.domain.search import SearchResult as SearchResult
    from mindia.domain.search import SearchResults as SearchResults
    from mindia.domain.storyboards import Storyboard as Storyboard
    from mindia.domain.storyboards import StoryboardTile as StoryboardTile
    from mindia.domain.tasks import OnFailure as OnFailure
    from mindia.domain.tasks import Priority as Priority
    from mindia.domain.tasks import Task as Task
    from mindia.domain.tasks import TaskCount as TaskCount
    from mindia.domain.tasks import TaskError as TaskError
    from mindia.domain.tasks import TaskInput as TaskInput
    from mindia.domain.tasks import TaskStatus as TaskStatus
    from mindia.domain.tasks import WorkReport as WorkReport
    from mindia.domain.tenant_deletion import RemovedRows as RemovedRows
    from mindia.domain.tenant_deletion import TenantDeletionProgress as TenantDeletionProgress
    from mindia.domain.tenant_deletion import TenantDeletionReport as TenantDeletionReport
    from mindia.domain.tenants import ApiKey as ApiKey
    from mindia.domain.tenants import IssuedApiKey as IssuedApiKey
    from mindia.domain.tenants import MediaLimits as MediaLimits
    from mindia.domain.tenants import Quota as Quota
    from mindia.domain.tenants import Tenant as Tenant
    from mindia.domain.tenants import TenantStatus as TenantStatus
    from mindia.domain.tenants import Usage as Usage
    from mindia.domain.tenants import User as User
    from mindia.domain.tenants import UserRole as UserRole
    from mindia.domain.transcripts import Cue as Cue
    from mindia.domain.transformations import ImageFormat as ImageFormat
    from mindia.domain.transformations import Preset as Preset
    from mindia.domain.transformations import Quality as Quality
    from mindia.domain.transformations import Transformation as Transformation
    from mindia.domain.uploads import Upload as Upload
    from mindia.domain.uploads import UploadPart as UploadPart
    from mindia.domain.webhooks import AttemptCause as AttemptCause
    from mindia.domain.webhooks import AttemptOutcome as AttemptOutcome
    from mindia.domain.webhooks import DeliveryStatus as DeliveryStatus
    from mindia.domain.webhooks import IssuedWebhook as IssuedWebhook
    from mindia.domain.webhooks import Webhook as Webhook
    from mindia.domain.webhooks import WebhookAttempt as WebhookAttempt
    from mindia.domain.webhooks import WebhookEvent as WebhookEvent
    from mindia.domain.webhooks import WebhookHealth as WebhookHealth
    from mindia.domain.webhooks import WebhookStatus as WebhookStatus
    from mindia.embedding.fastembed import FastEmbedEmbedder as FastEmbedEmbedder
    from mindia.embedding.function import FunctionEmbedder as FunctionEmbedder
    from mindia.embedding.lexical import LexicalEmbedder as LexicalEmbedder
    from mindia.embedding.openai_compatible import OpenAICompatibleEmbedder as OpenAICompatibleEmbedder
    from mindia.embedding.sentence_transformer import SentenceTransformerEmbedder as SentenceTransformerEmbedder
    from mindia.errors import MindiaError as MindiaError
    from mindia.library import Library as Library
    from mindia.library import LibraryTransaction as LibraryTransaction
    from mindia.library import Transaction as Transaction
    from mindia.storage.local import LocalStorage as LocalStorage
    from mindia.storage.memory import MemoryStorage as MemoryStorage
    from mindia.storage.moving import MovingStorage as MovingStorage
    from mindia.storage.s3 import S3Storage as S3Storage
    from mindia.worker.context import TaskContext as TaskContext

# Imported when first asked for: `import mindia` costs next to nothing.
_HOMES = {
    "mindia.app": ("Mindia", "connect", "local"),
    "mindia.config": ("Settings",),
    "mindia.delivery.signing": ("WebhookMessage", "verify_webhook"),
    "mindia.describing.base": ("Picture",),
    "mindia.describing.function": ("FunctionDescriber",),
    "mindia.describing.metadata": ("MetadataDescriber",),
    "mindia.describing.openai_compatible": ("OpenAICompatibleDescriber",),
    "mindia.domain.analytics": (
        "RequestCount", "RequestGroup", "RequestLog", "RequestLogBuffer", "RequestOrder", "RequestStats",
        "RequestSummary", "StorageStats", "TaskStats", "TimeStep",
    ),
    "mindia.domain.archives": ("ExportReport", "ImportReport", "MissingDerivative"),
    "mindia.domain.bulk": ("AddReport", "AddResult", "DeleteReport", "DeleteResult", "MediaInput", "Progress"),
    "mindia.domain.derivatives": ("Derivative",),
    "mindia.domain.filters": ("Between", "Contains", "Exists", "MediaOrder"),
    "mindia.domain.maintenance": (
        "CopyReport", "Finding", "MaintenanceReport", "Problem", "Repair", "VerifyReport", "VerifyStorage",
    ),
    "mindia.domain.index_stats": ("IndexStats", "SpaceStats"),
    "mindia.domain.media": (
        "Audio", "Candidate", "Disposition", "Document", "Image", "Location", "Media",
        "MediaKind", "MediaPage", "OnDuplicate", "ProcessingStatus", "Staged", "Video",
    ),
    "mindia.domain.operations": (
        "Blur", "Brightness", "Contrast", "Crop", "Direction", "Fit", "Flip", "Grayscale", "Invert", "Position",
        "Resize", "Rotate", "Saturation", "Sepia", "Sharpen", "SmartCrop", "Watermark",
    ),
    "mindia.domain.search": ("SearchResult", "SearchResults"),
    "mindia.domain.storyboards": ("Storyboard", "StoryboardTile"),
    "mindia.domain.tasks": (
        "OnFailure", "Priority", "Task", "TaskCount", "TaskError", "TaskInput", "TaskStatus", "WorkReport",
    ),
    "mindia.domain.tenant_deletion": ("RemovedRows", "TenantDeletionProgress", "TenantDeletionReport"),
    "mindia.domain.tenants": (
        "ApiKey", "IssuedApiKey", "MediaLimits", "Quota", "Tenant", "TenantStatus", "Usage", "User", "UserRole",
    ),
    "mindia.domain.webhooks": (
        "AttemptCause", "AttemptOutcome", "DeliveryStatus", "IssuedWebhook", "Webhook", "WebhookAttempt",
        "WebhookEvent", "WebhookHealth", "WebhookStatus",
    ),
    "mindia.domain.uploads": ("Upload", "UploadPart"),
    "mindia.domain.transcripts": ("Cue",),
    "mindia.domain.transformations": ("ImageFormat", "Preset", "Quality", "Transformation"),
    "mindia.embedding.fastembed": ("FastEmbedEmbedder",),
    "mindia.embedding.function": ("FunctionEmbedder",),
    "mindia.embedding.lexical": ("LexicalEmbedder",),
    "mindia.embedding.openai_compatible": ("OpenAICompatibleEmbedder",),
    "mindia.embedding.sentence_transformer": ("SentenceTransformerEmbedder",),
    "mindia.errors": ("MindiaError",),
    "mindia.library": ("Library", "LibraryTransaction", "Transaction"),
    "mindia.storage.local": ("LocalStorage",),
    "mindia.storage.memory": ("MemoryStorage",),
    "mindia.storage.moving": ("MovingStorage",),
    "mindia.storage.s3": ("S3Storage",),
    "mindia.worker.context": ("TaskContext",),
}  # fmt: skip

__all__ = ["__version__", *sorted(name for names in _HOMES.values() for name in names)]


def __getattr__(name: str) -> object:
    if name == "errors":
        return _import_module("mindia.errors")
    for module, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(_import_module(module), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "errors"]
