-- What the media store needs: texts and facts of items, objects that items share, limits of tenants, orders of listings.

alter table mindia.tenants add column limits jsonb not null default '{}';
alter table mindia.tenants add constraint tenants_limits_check check (jsonb_typeof(limits) = 'object');

alter table mindia.images add column description text not null default '';
alter table mindia.images add column details jsonb not null default '{}';
alter table mindia.images add column is_shared boolean not null default false;
alter table mindia.videos add column description text not null default '';
alter table mindia.videos add column details jsonb not null default '{}';
alter table mindia.videos add column is_shared boolean not null default false;
alter table mindia.audios add column description text not null default '';
alter table mindia.audios add column details jsonb not null default '{}';
alter table mindia.audios add column is_shared boolean not null default false;
alter table mindia.documents add column description text not null default '';
alter table mindia.documents add column details jsonb not null default '{}';
alter table mindia.documents add column is_shared boolean not null default false;

-- A description is a fact of the item; what is searched keeps its words alone.
update mindia.images m set description = d.description from mindia.search_documents d
    where d.tenant_id = m.tenant_id and d.entity_id = m.id and d.description <> '';
update mindia.videos m set description = d.description from mindia.search_documents d
    where d.tenant_id = m.tenant_id and d.entity_id = m.id and d.description <> '';
update mindia.audios m set description = d.description from mindia.search_documents d
    where d.tenant_id = m.tenant_id and d.entity_id = m.id and d.description <> '';
update mindia.documents m set description = d.description from mindia.search_documents d
    where d.tenant_id = m.tenant_id and d.entity_id = m.id and d.description <> '';
alter table mindia.search_documents drop column description;

create index idx_images_sha256 on mindia.images (tenant_id, sha256);
create index idx_videos_sha256 on mindia.videos (tenant_id, sha256);
create index idx_audios_sha256 on mindia.audios (tenant_id, sha256);
create index idx_documents_sha256 on mindia.documents (tenant_id, sha256);

create index idx_images_filename on mindia.images (tenant_id, filename collate "C", id);
create index idx_videos_filename on mindia.videos (tenant_id, filename collate "C", id);
create index idx_audios_filename on mindia.audios (tenant_id, filename collate "C", id);
create index idx_documents_filename on mindia.documents (tenant_id, filename collate "C", id);

create index idx_images_file_size on mindia.images (tenant_id, file_size, id);
create index idx_videos_file_size on mindia.videos (tenant_id, file_size, id);
create index idx_audios_file_size on mindia.audios (tenant_id, file_size, id);
create index idx_documents_file_size on mindia.documents (tenant_id, file_size, id);

create index idx_images_expires on mindia.images (expires_at) where expires_at is not null;
create index idx_videos_expires on mindia.videos (expires_at) where expires_at is not null;
create index idx_audios_expires on mindia.audios (expires_at) where expires_at is not null;
create index idx_documents_expires on mindia.documents (expires_at) where expires_at is not null;

-- How many items point at an object that more than one has pointed at; each of those items says `is_shared`.
create table mindia.shared_objects (
    tenant_id uuid not null,
    s3_key varchar(512) not null,
    item_count bigint not null,
    constraint shared_objects_pkey primary key (tenant_id, s3_key),
    constraint shared_objects_tenant_id_fkey foreign key (tenant_id) references mindia.tenants (id),
    constraint shared_objects_item_count_check check (item_count > 0)
);

drop view mindia.media;

-- All four kinds as one list, those that have expired among them.
create view mindia.all_media with (security_invoker = true) as
    select 'image'::mindia.entity_type as kind, id, tenant_id, filename::text collate "C" as filename, original_filename,
           s3_key, content_type, file_size, sha256, metadata, description, details, is_shared,
           uploaded_at, updated_at, expires_at, width, height,
           null::double precision as duration, null::integer as bitrate, null::integer as sample_rate,
           null::integer as channels, null::integer as page_count,
           null::mindia.processing_status as processing_status, null::varchar(512) as hls_master_key
      from mindia.images
    union all
    select 'video'::mindia.entity_type, id, tenant_id, filename::text collate "C", original_filename,
           s3_key, content_type, file_size, sha256, metadata, description, details, is_shared,
           uploaded_at, updated_at, expires_at, width, height,
           duration, null, null, null, null, processing_status, hls_master_key
      from mindia.videos
    union all
    select 'audio'::mindia.entity_type, id, tenant_id, filename::text collate "C", original_filename,
           s3_key, content_type, file_size, sha256, metadata, description, details, is_shared,
           uploaded_at, updated_at, expires_at, null, null,
           duration, bitrate, sample_rate, channels, null, null, null
      from mindia.audios
    union all
    select 'document'::mindia.entity_type, id, tenant_id, filename::text collate "C", original_filename,
           s3_key, content_type, file_size, sha256, metadata, description, details, is_shared,
           uploaded_at, updated_at, expires_at, null, null,
           null, null, null, null, page_count, null, null
      from mindia.documents;

create view mindia.media with (security_invoker = true) as
    select * from mindia.all_media where expires_at is null or expires_at > now();

-- The tasks of an item that wait: one is enough when it changes, and they go with it when it is deleted.
create index idx_tasks_entity on mindia.tasks (tenant_id, (payload ->> 'entity_id'))
    where kind = 'generate_embedding' and status = 'pending';
