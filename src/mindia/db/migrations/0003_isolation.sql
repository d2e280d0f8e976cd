-- Users' keys and failed log-ins, quotas, who has caused a task, and row-level security on all that tenants own.

-- As a column, since an index over lower(email) is of no use under row-level security: lower() is not leakproof.
alter table mindia.users add column email_key text generated always as (lower(email)) stored;
drop index mindia.users_tenant_email_key;
create unique index users_tenant_email_key on mindia.users (tenant_id, email_key);

create table mindia.api_keys (
    tenant_id uuid not null,
    id uuid not null,
    name varchar(255) not null,
    prefix varchar(16) not null,
    secret_hash bytea not null,
    role mindia.user_role not null,
    created_by uuid,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    constraint api_keys_pkey primary key (tenant_id, id),
    constraint api_keys_prefix_key unique (prefix),
    constraint api_keys_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint api_keys_secret_hash_check check (octet_length(secret_hash) = 32)
);

-- By the hash of an e-mail address, whether there is such a user or not: a lock-out must not tell which. Without a
-- reference to tenants: counting waits for nobody who holds a tenant's row, and rows go by themselves when they expire.
create table mindia.login_failures (
    tenant_id uuid not null,
    email_hash bytea not null,
    failure_count integer not null,
    expires_at timestamptz not null,
    constraint login_failures_pkey primary key (tenant_id, email_hash)
);
create index idx_login_failures_expires on mindia.login_failures (expires_at);

-- What a tenant may have at most, and what it has: a row only where there is a quota.
create table mindia.quotas (
    tenant_id uuid not null,
    max_items bigint,
    max_total_bytes bigint,
    item_count bigint not null,
    total_bytes bigint not null,
    constraint quotas_pkey primary key (tenant_id),
    constraint quotas_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id)
);

alter table mindia.tasks add column initiated_by uuid;

-- Counts items and bytes against the quota of a tenant, where it has one; refuses what would exceed it.
create function mindia.use_quota(tenant uuid, items bigint, bytes bigint) returns void language plpgsql as $$
declare
    quota mindia.quotas;
begin
    -- Waits for who sets a quota at the moment, and has counted without this.
    perform from mindia.tenants where id = tenant for key share;
    update mindia.quotas set item_count = item_count + items, total_bytes = total_bytes + bytes
        where tenant_id = tenant returning * into quota;
    if items > 0 and quota.item_count > quota.max_items then
        raise exception using errcode = 'MI004',
            message = format('tenant %s has %s items, its quota is %s', tenant, quota.item_count - items, quota.max_items);
    elsif bytes > 0 and quota.total_bytes > quota.max_total_bytes then
        raise exception using errcode = 'MI004', message = format(
            'tenant %s has %s bytes, its quota is %s: there is no room for %s more',
            tenant, quota.total_bytes - bytes, quota.max_total_bytes, bytes
        );
    end if;
end
$$;

create policy tenant_isolation on mindia.tenants
    using (id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.users
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.api_keys
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.login_failures
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.quotas
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.images
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.videos
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.audios
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.documents
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.search_documents
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.embedding_spaces
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.embeddings
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.request_logs
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.webhooks
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.webhook_events
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.webhook_attempts
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.tasks
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.staged_objects
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.deleted_objects
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
create policy tenant_isolation on mindia.shared_objects
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);

alter table mindia.tenants enable row level security;
alter table mindia.users enable row level security;
alter table mindia.api_keys enable row level security;
alter table mindia.login_failures enable row level security;
alter table mindia.quotas enable row level security;
alter table mindia.images enable row level security;
alter table mindia.videos enable row level security;
alter table mindia.audios enable row level security;
alter table mindia.documents enable row level security;
alter table mindia.search_documents enable row level security;
alter table mindia.embedding_spaces enable row level security;
alter table mindia.embeddings enable row level security;
alter table mindia.request_logs enable row level security;
alter table mindia.webhooks enable row level security;
alter table mindia.webhook_events enable row level security;
alter table mindia.webhook_attempts enable row level security;
alter table mindia.tasks enable row level security;
alter table mindia.staged_objects enable row level security;
alter table mindia.deleted_objects enable row level security;
alter table mindia.shared_objects enable row level security;

-- Binds the transaction to a tenant; refuses one that is not there or not active.
create or replace function mindia.set_tenant(tenant uuid) returns void language plpgsql as $$
declare
    current_status mindia.tenant_status;
begin
    -- First, since it is what lets the tenant's row be seen. An error takes it back.
    perform set_config('mindia.tenant_id', tenant::text, true);
    select status into current_status from mindia.tenants where id = tenant;
    if not found then
        raise exception using errcode = 'MI001', message = format('there is no tenant %s', tenant);
    elsif current_status <> 'active' then
        raise exception using errcode = 'MI002', message = format('tenant %s is %s', tenant, current_status);
    end if;
end
$$;

-- Binds the transaction to a tenant on behalf of one of its users or API keys; refuses one whose role does not suffice.
create function mindia.set_initiator(tenant uuid, initiator uuid, least_role mindia.user_role) returns void
language plpgsql as $$
declare
    initiator_role mindia.user_role;
begin
    perform mindia.set_tenant(tenant);
    select role into initiator_role from mindia.users where tenant_id = tenant and id = initiator and is_active;
    if not found then
        select role into initiator_role from mindia.api_keys
            where tenant_id = tenant and id = initiator and revoked_at is null
              and (expires_at is null or expires_at > clock_timestamp());
    end if;
    if initiator_role is null then
        raise exception using errcode = 'MI003',
            message = format('%s is no active user and no valid API key of tenant %s', initiator, tenant);
    elsif initiator_role > least_role then  -- the labels go from the one that may do most to the one that may do least
        raise exception using errcode = 'MI003',
            message = format(
                '%s is a %s: this takes %s %s', initiator, initiator_role,
                case least_role when 'admin' then 'an' else 'a' end, least_role
            );
    end if;
end
$$;

-- Under a policy no index is used for `@@` and `@>`, which are not leakproof: functions of the owner use theirs, and refuse
-- a tenant other than the one that the transaction is bound to. They are planned anew each time, since a plan for any
-- tenant is a bad one for a large or a small tenant.

-- The items whose words match, with how well they do.
create function mindia.search_words(tenant uuid, query tsquery, kind mindia.entity_type)
returns table (entity_id uuid, text_score real)
language plpgsql stable security definer rows 100
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan as $$
begin
    if tenant is distinct from nullif(current_setting('mindia.tenant_id', true), '')::uuid then
        raise exception using errcode = '42501', message = format('tenant %s is not that of the transaction', tenant);
    end if;
    return query
        select d.entity_id, ts_rank_cd(d.tsv, query) from mindia.search_documents d
        where d.tenant_id = tenant and d.tsv @@ query and (kind is null or d.entity_type = kind);
end
$$;

-- The items whose metadata contain something, or null where there are more than `most`.
create function mindia.items_with_metadata(tenant uuid, wanted jsonb, most integer) returns uuid[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan as $$
declare
    ids uuid[];
begin
    if tenant is distinct from nullif(current_setting('mindia.tenant_id', true), '')::uuid then
        raise exception using errcode = '42501', message = format('tenant %s is not that of the transaction', tenant);
    end if;
    ids := array(
        select d.entity_id from mindia.search_documents d
        where d.tenant_id = tenant and d.metadata @> wanted limit most + 1
    );
    return case when cardinality(ids) <= most then ids end;
end
$$;

-- The API key of a prefix, before it is known whose it is: the one thing that is looked up without a tenant.
create function mindia.find_api_key(wanted_prefix text)
returns table (
    tenant_id uuid, id uuid, name varchar(255), prefix varchar(16), secret_hash bytea, role mindia.user_role,
    created_by uuid, created_at timestamptz, expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz,
    tenant_status mindia.tenant_status
)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select k.tenant_id, k.id, k.name, k.prefix, k.secret_hash, k.role, k.created_by, k.created_at, k.expires_at,
           k.revoked_at, k.last_used_at, t.status
    from mindia.api_keys k join mindia.tenants t on t.id = k.tenant_id
    where k.prefix = wanted_prefix
$$;

-- The roles that log in or are taken on: see grant_role().
create table mindia.database_roles (
    name text not null,
    purpose text not null,
    constraint database_roles_pkey primary key (name),
    constraint database_roles_purpose_check check (purpose in ('application', 'worker'))
);

-- Gives the roles on record what they need on the tables as they are now; a migration that adds some is followed by it.
create function mindia.grant_roles() returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    granted mindia.database_roles;
    owned text;
    workers text;
begin
    delete from mindia.database_roles where name not in (select rolname from pg_catalog.pg_roles);
    for granted in select * from mindia.database_roles loop
        execute format('revoke all on all tables in schema mindia from %I', granted.name);
        execute format('grant usage on schema mindia to %I', granted.name);
        execute format('grant select on mindia.schema_migrations, mindia.media, mindia.all_media to %I', granted.name);
        execute format('grant usage on all sequences in schema mindia to %I', granted.name);
        execute format('grant execute on all functions in schema mindia to %I', granted.name);
        if granted.purpose = 'worker' then
            execute format(
                'grant select, insert, update, delete on mindia.workers, mindia.task_dependencies, mindia.task_errors to %I',
                granted.name
            );
        end if;
    end loop;
    select string_agg(format('%I', name), ', ') into workers from mindia.database_roles where purpose = 'worker';
    for owned in
        select format('mindia.%I', relname) from pg_catalog.pg_class
        where relnamespace = 'mindia'::regnamespace and relrowsecurity
    loop
        for granted in select * from mindia.database_roles loop
            if granted.purpose = 'worker' or owned not in ('mindia.tenants', 'mindia.quotas') then
                execute format('grant select, insert, update, delete on %s to %I', owned, granted.name);
            end if;
        end loop;
        execute format('drop policy if exists across_tenants on %s', owned);
        if workers is not null then
            execute format('create policy across_tenants on %s to %s using (true) with check (true)', owned, workers);
        end if;
    end loop;
    for granted in select * from mindia.database_roles where purpose = 'application' loop
        -- The right to change something is what locking a row takes.
        execute format('grant select, update (updated_at) on mindia.tenants to %I', granted.name);
        execute format('grant select, update (item_count, total_bytes) on mindia.quotas to %I', granted.name);
    end loop;
end
$$;

-- Makes a role that of an application, which sees one tenant at a time, or that of a worker, which sees all.
create function mindia.grant_role(role_name text, role_purpose text) returns void language plpgsql as $$
begin
    perform from pg_catalog.pg_roles where rolname = role_name;
    if not found then
        raise exception using errcode = 'undefined_object',
            message = format('there is no role %I: create it first', role_name);
    end if;
    insert into mindia.database_roles (name, purpose) values (role_name, role_purpose)
        on conflict on constraint database_roles_pkey do update set purpose = excluded.purpose;
    perform mindia.grant_roles();
end
$$;
