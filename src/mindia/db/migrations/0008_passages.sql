-- Passages of items, what a model says of a picture, and spaces that are built beside the one that is searched.

create table mindia.passages (
    tenant_id uuid not null,
    entity_id uuid not null,
    passage integer not null,
    source text not null,
    page integer,
    start_s double precision,
    end_s double precision,
    text text not null,
    constraint passages_pkey primary key (tenant_id, entity_id, passage),
    constraint passages_document_fkey foreign key (tenant_id, entity_id)
        references mindia.search_documents (tenant_id, entity_id) on delete cascade,
    constraint passages_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint passages_source_check check (source in ('page', 'transcript', 'frame'))
);

-- Written by a model, and so never in place of what a person has said.
alter table mindia.search_documents add column generated text not null default '';
alter table mindia.search_documents add column generated_by varchar(100);

alter table mindia.embedding_spaces add column retired_at timestamptz;

-- One space of a tenant is searched: the latest one that was made.
update mindia.embedding_spaces s set status = 'retired', retired_at = now()
    where s.status = 'active' and exists (
        select from mindia.embedding_spaces later
        where later.tenant_id = s.tenant_id and later.status = 'active' and later.id > s.id
    );
create unique index embedding_spaces_active_key on mindia.embedding_spaces (tenant_id) where status = 'active';

create policy tenant_isolation on mindia.passages
    using (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid)
    with check (tenant_id = nullif(current_setting('mindia.tenant_id', true), '')::uuid);
alter table mindia.passages enable row level security;
