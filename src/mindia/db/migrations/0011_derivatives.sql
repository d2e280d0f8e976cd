-- What is made of items: one row for each object, or for a prefix of objects that belong together.

-- By the bytes that it was made of, not by the item: items that share their bytes share what was made of them, too.
create table mindia.derivatives (
    tenant_id uuid not null,
    id uuid not null,
    source_id uuid not null,
    operations varchar(1000) not null,
    s3_key varchar(512) not null,
    s3_prefix varchar(512),
    content_type varchar(100) not null,
    file_size bigint not null,
    file_count integer not null default 1,
    sha256 bytea,
    width integer,
    height integer,
    created_at timestamptz not null default now(),
    constraint derivatives_pkey primary key (tenant_id, id),
    constraint derivatives_operations_key unique (tenant_id, source_id, operations),
    constraint derivatives_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint derivatives_file_size_check check (file_size >= 0),
    constraint derivatives_file_count_check check (file_count > 0),
    constraint derivatives_sha256_check check (octet_length(sha256) = 32)
);

-- Operations that a tenant has given a name.
create table mindia.presets (
    tenant_id uuid not null,
    name varchar(64) not null,
    operations varchar(1000) not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint presets_pkey primary key (tenant_id, name),
    constraint presets_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id)
);

-- Of which bytes it is made, where it is staged for a derivative; null where it is staged for an item.
alter table mindia.staged_objects add column source_id uuid;

create policy tenant_isolation on mindia.derivatives
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
alter table mindia.derivatives enable row level security;

create policy tenant_isolation on mindia.presets
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
alter table mindia.presets enable row level security;
