-- The tables of the data model; docs/schema.md tells where each comes from and why it is as it is.

create type mindia.tenant_status as enum ('active', 'suspended', 'deleted');
create type mindia.user_role as enum ('admin', 'member', 'viewer');
create type mindia.processing_status as enum ('pending', 'processing', 'completed', 'failed');
create type mindia.entity_type as enum ('image', 'video', 'audio', 'document');
create type mindia.delivery_status as enum ('pending', 'delivered', 'failed');
create type mindia.task_type as enum ('video_transcode', 'generate_embedding', 'custom');
create type mindia.task_status as enum ('pending', 'running', 'completed', 'failed', 'cancelled');
create type mindia.space_status as enum ('building', 'active', 'retired');

create table mindia.tenants (
    id uuid default gen_random_uuid(),
    name varchar(255) not null,
    s3_bucket varchar(255) not null,
    s3_region varchar(50) not null,
    status mindia.tenant_status not null default 'active',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint tenants_pkey primary key (id),
    constraint tenants_s3_bucket_key unique (s3_bucket)
);

create table mindia.users (
    id uuid default gen_random_uuid(),
    tenant_id uuid not null,
    email varchar(255) not null,
    password_hash varchar(255) not null,
    role mindia.user_role not null default 'member',
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_login_at timestamptz,
    constraint users_pkey primary key (id),
    constraint users_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id)
);
create index idx_users_tenant on mindia.users (tenant_id);
create index idx_users_email on mindia.users (email);
create unique index users_tenant_email_key on mindia.users (tenant_id, lower(email));

create table mindia.images (
    id uuid default gen_random_uuid(),
    tenant_id uuid not null,
    filename varchar(255) not null,
    original_filename varchar(255) not null,
    s3_key varchar(512) not null,
    s3_url text not null,
    content_type varchar(100) not null,
    file_size bigint not null,
    width integer,
    height integer,
    uploaded_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    expires_at timestamptz,
    sha256 bytea not null,
    metadata jsonb not null default '{}',
    constraint images_pkey primary key (id),
    constraint images_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint images_file_size_check check (file_size > 0),
    constraint images_sha256_check check (octet_length(sha256) = 32),
    constraint images_metadata_check check (jsonb_typeof(metadata) = 'object')
);
create index idx_images_tenant on mindia.images (tenant_id, uploaded_at desc, id desc);

create table mindia.videos (
    id uuid default gen_random_uuid(),
    tenant_id uuid not null,
    filename varchar(255) not null,
    original_filename varchar(255) not null,
    s3_key varchar(512) not null,
    content_type varchar(100) not null,
    file_size bigint not null,
    processing_status mindia.processing_status not null default 'pending',
    hls_master_key varchar(512),
    duration double precision,
    width integer,
    height integer,
    uploaded_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    expires_at timestamptz,
    sha256 bytea not null,
    metadata jsonb not null default '{}',
    constraint videos_pkey primary key (id),
    constraint videos_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint videos_file_size_check check (file_size > 0),
    constraint videos_sha256_check check (octet_length(sha256) = 32),
    constraint videos_metadata_check check (jsonb_typeof(metadata) = 'object')
);
create index idx_videos_tenant_created on mindia.videos (tenant_id, uploaded_at desc, id desc);

create table mindia.audios (
    id uuid default gen_random_uuid(),
    tenant_id uuid not null,
    filename varchar(255) not null,
    original_filename varchar(255) not null,
    s3_key varchar(512) not null,
    content_type varchar(100) not null,
    file_size bigint not null,
    duration double precision,
    bitrate integer,
    sample_rate integer,
    channels integer,
    uploaded_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    expires_at timestamptz,
    sha256 bytea not null,
    metadata jsonb not null default '{}',
    constraint audios_pkey primary key (id),
    constraint audios_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint audios_file_size_check check (file_size > 0),
    constraint audios_sha256_check check (octet_length(sha256) = 32),
    constraint audios_metadata_check check (jsonb_typeof(metadata) = 'object')
);
create index idx_audios_tenant on mindia.audios (tenant_id, uploaded_at desc, id desc);

create table mindia.documents (
    id uuid default gen_random_uuid(),
    tenant_id uuid not null,
    filename varchar(255) not null,
    original_filename varchar(255) not null,
    s3_key varchar(512) not null,
    content_type varchar(100) not null,
    file_size bigint not null,
    page_count integer,
    uploaded_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    expires_at timestamptz,
    sha256 bytea not null,
    metadata jsonb not null default '{}',
    constraint documents_pkey primary key (id),
    constraint documents_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint documents_file_size_check check (file_size > 0),
    constraint documents_sha256_check check (octet_length(sha256) = 32),
    constraint documents_metadata_check check (jsonb_typeof(metadata) = 'object')
);
create index idx_documents_tenant on mindia.documents (tenant_id, uploaded_at desc, id desc);

-- All four kinds as one list, without what has expired.
create view mindia.media with (security_invoker = true) as
    select 'image'::mindia.entity_type as kind, id, tenant_id, filename, original_filename, s3_key, content_type,
           file_size, sha256, metadata, uploaded_at, updated_at, expires_at, width, height,
           null::double precision as duration, null::integer as bitrate, null::integer as sample_rate,
           null::integer as channels, null::integer as page_count,
           null::mindia.processing_status as processing_status, null::varchar(512) as hls_master_key
      from mindia.images where expires_at is null or expires_at > now()
    union all
    select 'video'::mindia.entity_type, id, tenant_id, filename, original_filename, s3_key, content_type,
           file_size, sha256, metadata, uploaded_at, updated_at, expires_at, width, height,
           duration, null, null, null, null, processing_status, hls_master_key
      from mindia.videos where expires_at is null or expires_at > now()
    union all
    select 'audio'::mindia.entity_type, id, tenant_id, filename, original_filename, s3_key, content_type,
           file_size, sha256, metadata, uploaded_at, updated_at, expires_at, null, null,
           duration, bitrate, sample_rate, channels, null, null, null
      from mindia.audios where expires_at is null or expires_at > now()
    union all
    select 'document'::mindia.entity_type, id, tenant_id, filename, original_filename, s3_key, content_type,
           file_size, sha256, metadata, uploaded_at, updated_at, expires_at, null, null,
           null, null, null, null, page_count, null, null
      from mindia.documents where expires_at is null or expires_at > now();

-- What is searched by word, one row an item, written with the media row.
create table mindia.search_documents (
    tenant_id uuid not null,
    entity_id uuid not null,
    entity_type mindia.entity_type not null,
    language text not null default 'english',
    title text not null,
    description text not null default '',
    body text not null default '',
    metadata jsonb not null default '{}',
    tsv tsvector not null,
    updated_at timestamptz not null default now(),
    constraint search_documents_pkey primary key (tenant_id, entity_id),
    constraint search_documents_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id)
);
create index idx_search_documents_tsv on mindia.search_documents using gin (tsv);
create index idx_search_documents_metadata on mindia.search_documents using gin (metadata jsonb_path_ops);

-- A space is what one model makes: vectors of different spaces are never compared.
create table mindia.embedding_spaces (
    tenant_id uuid not null,
    id smallint not null,
    model_name varchar(100) not null,
    native_dimensions integer not null,
    status mindia.space_status not null default 'active',
    created_at timestamptz not null default now(),
    constraint embedding_spaces_pkey primary key (tenant_id, id),
    constraint embedding_spaces_model_key unique (tenant_id, model_name),
    constraint embedding_spaces_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint embedding_spaces_dimensions_check check (native_dimensions > 0)
);

create table mindia.embeddings (
    id bigserial,
    entity_id uuid not null,
    entity_type mindia.entity_type not null,
    tenant_id uuid not null,
    space_id smallint not null,
    passage integer not null default 0,
    locator jsonb,
    description text not null,
    embedding {vector}.vector(768) storage plain not null,
    model_name varchar(100) not null,
    created_at timestamptz not null default now(),
    constraint embeddings_pkey primary key (id),
    constraint embeddings_passage_key unique (tenant_id, entity_id, space_id, passage),
    constraint embeddings_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint embeddings_space_fkey foreign key (tenant_id, space_id)
        references mindia.embedding_spaces (tenant_id, id),
    constraint embeddings_document_fkey foreign key (tenant_id, entity_id)
        references mindia.search_documents (tenant_id, entity_id) on delete cascade
) with (toast_tuple_target = 4080);
create index idx_embeddings_tenant on mindia.embeddings (tenant_id, space_id);

create table mindia.request_logs (
    id bigserial,
    tenant_id uuid,
    method varchar(10) not null,
    path varchar(512) not null,
    status_code integer not null,
    response_time_ms integer not null,
    bytes_sent bigint,
    bytes_received bigint,
    ip_address varchar(45),
    user_agent text,
    created_at timestamptz not null default now(),
    constraint request_logs_pkey primary key (id),
    constraint request_logs_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id)
);
create index idx_request_logs_tenant on mindia.request_logs (tenant_id, created_at desc);
create index idx_request_logs_path on mindia.request_logs (path, created_at desc);
create index idx_request_logs_status on mindia.request_logs (status_code, created_at desc);

create table mindia.webhooks (
    id uuid default gen_random_uuid(),
    tenant_id uuid not null,
    url varchar(512) not null,
    events text[] not null,
    signing_secret varchar(255),
    previous_secret varchar(255),
    previous_secret_until timestamptz,
    is_active boolean not null default true,
    disabled_at timestamptz,
    disabled_reason text,
    is_ordered boolean not null default false,
    max_in_flight integer not null default 8,
    max_per_second real,
    failures_in_row integer not null default 0,
    first_failed_at timestamptz,
    open_until timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint webhooks_pkey primary key (id),
    constraint webhooks_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint webhooks_max_in_flight_check check (max_in_flight > 0)
);
create index idx_webhooks_tenant on mindia.webhooks (tenant_id);

create table mindia.webhook_events (
    id bigserial,
    tenant_id uuid not null,
    webhook_id uuid not null,
    event_id uuid not null,
    event_type varchar(100) not null,
    payload jsonb not null,
    body text,
    delivery_status mindia.delivery_status not null default 'pending',
    retry_count integer not null default 0,
    next_attempt_at timestamptz not null default now(),
    lease_token uuid,
    leased_until timestamptz,
    delivered_at timestamptz,
    created_at timestamptz not null default now(),
    constraint webhook_events_pkey primary key (id),
    constraint webhook_events_event_key unique (webhook_id, event_id),
    constraint webhook_events_webhook_id_fkey foreign key (webhook_id) references mindia.webhooks (id) on delete cascade
);
create index idx_webhook_events_due on mindia.webhook_events (webhook_id, next_attempt_at, id)
    where delivery_status = 'pending';
create index idx_webhook_events_tenant on mindia.webhook_events (tenant_id, created_at desc);

create table mindia.webhook_attempts (
    tenant_id uuid not null,
    id uuid not null,
    webhook_event_id bigint not null,
    webhook_id uuid not null,
    attempt integer not null,
    cause text not null,
    started_at timestamptz not null,
    duration_ms integer not null,
    outcome text not null,
    status_code integer,
    error_code text,
    response text,
    address varchar(45),
    constraint webhook_attempts_pkey primary key (tenant_id, id),
    constraint webhook_attempts_event_fkey foreign key (webhook_event_id)
        references mindia.webhook_events (id) on delete cascade
);
create index idx_webhook_attempts_event on mindia.webhook_attempts (webhook_event_id, attempt);

create table mindia.tasks (
    id uuid default gen_random_uuid(),
    tenant_id uuid,
    task_type mindia.task_type not null,
    kind text not null,
    payload jsonb not null,
    status mindia.task_status not null default 'pending',
    priority integer not null default 0,
    retry_count integer not null default 0,
    max_retries integer not null default 3,
    attempt integer not null default 0,
    worker_id uuid,
    waiting_on integer not null default 0,
    dedup_key text,
    timeout_s double precision,
    cancel_requested boolean not null default false,
    progress real,
    progress_note text,
    result jsonb,
    created_at timestamptz not null default now(),
    scheduled_for timestamptz not null default now(),
    started_at timestamptz,
    completed_at timestamptz,
    error_message text,
    constraint tasks_pkey primary key (id),
    constraint tasks_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint tasks_kind_check check (task_type = 'custom' or kind = task_type::text),
    constraint tasks_max_retries_check check (max_retries >= 0)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
create index idx_tasks_status on mindia.tasks (priority desc, scheduled_for, id)
    where status = 'pending' and waiting_on = 0;
create index idx_tasks_running on mindia.tasks (worker_id) where status = 'running';
create index idx_tasks_tenant on mindia.tasks (tenant_id, created_at desc);
create unique index tasks_dedup_key on mindia.tasks (tenant_id, dedup_key) nulls not distinct
    where dedup_key is not null and status in ('pending', 'running');

create table mindia.task_dependencies (
    task_id uuid not null,
    depends_on_id uuid not null,
    on_failure text not null default 'cancel',
    constraint task_dependencies_pkey primary key (task_id, depends_on_id),
    constraint task_dependencies_task_id_fkey foreign key (task_id) references mindia.tasks (id) on delete cascade,
    constraint task_dependencies_depends_on_id_fkey foreign key (depends_on_id)
        references mindia.tasks (id) on delete cascade,
    constraint task_dependencies_on_failure_check check (on_failure in ('cancel', 'proceed'))
);
create index idx_task_dependencies_depends_on on mindia.task_dependencies (depends_on_id);

-- Every failed attempt of a task.
create table mindia.task_errors (
    task_id uuid not null,
    attempt integer not null,
    error_type text not null,
    error_message text not null,
    traceback text,
    failed_at timestamptz not null default now(),
    constraint task_errors_pkey primary key (task_id, attempt),
    constraint task_errors_task_id_fkey foreign key (task_id) references mindia.tasks (id) on delete cascade
);

create table mindia.workers (
    id uuid not null,
    hostname text not null,
    pid integer not null,
    started_at timestamptz not null default now(),
    heartbeat_at timestamptz not null default now(),
    constraint workers_pkey primary key (id)
);

-- Keys that bytes may stand under although no media row points at them yet.
create table mindia.staged_objects (
    tenant_id uuid not null,
    id uuid not null,
    s3_bucket varchar(255) not null,
    leased_at timestamptz not null default now(),
    constraint staged_objects_pkey primary key (tenant_id, id)
);
create index idx_staged_objects_leased on mindia.staged_objects (leased_at);

-- Bytes that are to be removed; the rows that pointed at them are gone.
create table mindia.deleted_objects (
    tenant_id uuid not null,
    id uuid not null,
    s3_bucket varchar(255) not null,
    s3_keys text[] not null,
    s3_prefixes text[] not null,
    deleted_at timestamptz not null default now(),
    attempts integer not null default 0,
    next_attempt_at timestamptz not null default now(),
    last_error text,
    constraint deleted_objects_pkey primary key (tenant_id, id)
);
create index idx_deleted_objects_due on mindia.deleted_objects (next_attempt_at);

-- Binds the transaction to a tenant; refuses one that is not there or not active.
create function mindia.set_tenant(tenant uuid) returns void language plpgsql as $$
declare
    current_status mindia.tenant_status;
begin
    select status into current_status from mindia.tenants where id = tenant;
    if not found then
        raise exception using errcode = 'MI001', message = format('there is no tenant %s', tenant);
    elsif current_status <> 'active' then
        raise exception using errcode = 'MI002', message = format('tenant %s is %s', tenant, current_status);
    end if;
    perform set_config('mindia.tenant_id', tenant::text, true);
end
$$;
