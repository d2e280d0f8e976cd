-- Which task encodes a video for streaming: what becomes of that one becomes of the status.

alter table mindia.videos add column transcode_task_id uuid;

create index idx_videos_processing on mindia.videos (tenant_id, id) where processing_status = 'processing';
