-- What may be asked of a feed while it runs, and what it says of itself.
ALTER TABLE feeds
	ADD COLUMN include text[] NOT NULL DEFAULT '{}',
	ADD COLUMN exclude text[] NOT NULL DEFAULT '{}',
	ADD COLUMN flush interval NOT NULL DEFAULT '0',
	ADD COLUMN max_wal bigint NOT NULL DEFAULT 0,
	ADD COLUMN paused boolean NOT NULL DEFAULT false,
	ADD COLUMN derived text NOT NULL DEFAULT '',
	ADD COLUMN wal_held bigint NOT NULL DEFAULT 0,
	ADD COLUMN pipeline_id text NOT NULL DEFAULT gen_random_uuid()::text;
CREATE UNIQUE INDEX feeds_pipeline ON feeds (pipeline_id);

ALTER TABLE feed_tables
	ADD COLUMN rows bigint NOT NULL DEFAULT 0,
	ADD COLUMN dead_letters bigint NOT NULL DEFAULT 0,
	ADD COLUMN copied bigint NOT NULL DEFAULT 0,
	ADD COLUMN copy_rows bigint NOT NULL DEFAULT 0;
