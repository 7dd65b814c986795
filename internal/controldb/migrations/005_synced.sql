-- Synced tables that follow their source, and the pipelines of all movers.

ALTER TABLE synced_tables
	ADD timeseries_key text NOT NULL DEFAULT '',
	ADD type_overrides jsonb NOT NULL DEFAULT '[]',
	ADD pace interval NOT NULL DEFAULT '0',
	ADD cron text NOT NULL DEFAULT '',
	ADD cron_zone text NOT NULL DEFAULT '',
	ADD on_reject text NOT NULL DEFAULT '',
	ADD alerts jsonb NOT NULL DEFAULT '{}',
	ADD update_id text NOT NULL DEFAULT '',
	ADD refresh text NOT NULL DEFAULT '',
	ADD rejected bigint NOT NULL DEFAULT 0,
	ADD newest_version bigint NOT NULL DEFAULT 0,
	ADD newest_time timestamptz;

CREATE TABLE pipelines (
	id text PRIMARY KEY,
	kind text NOT NULL,
	name text NOT NULL,
	owner text NOT NULL, -- uid of the synced table or feed
	project text NOT NULL,
	creator text NOT NULL,
	created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE pipeline_updates (
	id text PRIMARY KEY,
	number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
	pipeline text NOT NULL REFERENCES pipelines ON DELETE CASCADE,
	state text NOT NULL,
	cause text NOT NULL,
	refresh text NOT NULL,
	message text NOT NULL,
	rows bigint NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	updated timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pipeline_updates (pipeline, number);

CREATE TABLE pipeline_events (
	id text PRIMARY KEY,
	number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
	pipeline text NOT NULL REFERENCES pipelines ON DELETE CASCADE,
	update_id text NOT NULL,
	level text NOT NULL,
	type text NOT NULL,
	message text NOT NULL,
	error text NOT NULL,
	created timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON pipeline_events (pipeline, number);

INSERT INTO pipelines (id, kind, name, owner, project, creator, created)
SELECT pipeline_id, 'SYNCED_TABLE', catalog || '.' || schema || '.' || name, uid, project, '', created FROM synced_tables;
