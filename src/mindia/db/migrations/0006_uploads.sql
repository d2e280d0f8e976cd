-- Uploads that clients make by themselves: on record before anybody is given a place to put bytes.

create table mindia.uploads (
    tenant_id uuid not null,
    id uuid not null,
    s3_bucket varchar(255) not null,
    filename varchar(255) not null,
    original_filename varchar(255) not null,
    content_type varchar(100),
    max_bytes bigint not null,
    file_size bigint,
    part_size bigint,
    multipart_id text,
    initiated_by uuid,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    sweep_at timestamptz not null,
    closed_at timestamptz,
    staged_id uuid,
    constraint uploads_pkey primary key (tenant_id, id)
);
create index idx_uploads_sweep on mindia.uploads (sweep_at);

create policy tenant_isolation on mindia.uploads
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
alter table mindia.uploads enable row level security;
