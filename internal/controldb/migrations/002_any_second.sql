-- A branch is put on a timeline when it is made, restored or reset; what it was
-- before goes on as branch "earlier". No reference: that branch may go.
ALTER TABLE branches
	ADD COLUMN source_snapshot text,
	ADD COLUMN line_began timestamptz NOT NULL DEFAULT now(),
	ADD COLUMN earlier text;
UPDATE branches SET line_began = created;

-- A snapshot outlives its branch: source names what may be gone. What is forked
-- is source_timeline, the branch's when the snapshot was asked for.
CREATE TABLE snapshots (
	project text NOT NULL REFERENCES projects (name) ON UPDATE CASCADE,
	name text NOT NULL,
	uid text NOT NULL UNIQUE,
	source text NOT NULL,
	source_time timestamptz,
	source_lsn pg_lsn,
	source_timeline text NOT NULL,
	expires timestamptz,
	state text NOT NULL CHECK (state IN ('INIT', 'READY', 'DELETED')),
	timeline text NOT NULL UNIQUE CHECK (timeline ~ '^[0-9a-f]{32}$'),
	point_time timestamptz,
	point_lsn pg_lsn,
	message text NOT NULL DEFAULT '',
	created timestamptz NOT NULL DEFAULT now(),
	updated timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (project, name)
);
CREATE INDEX snapshots_expires ON snapshots (expires) WHERE expires IS NOT NULL;

ALTER TABLE operations DROP CONSTRAINT operations_verb_check;
ALTER TABLE operations ADD CONSTRAINT operations_verb_check CHECK (verb IN ('create', 'update', 'delete', 'restore', 'reset'));

-- What a restore or a reset does to its branch: replaced gives way to timeline,
-- a fork of source_timeline, and goes on as branch kept_as or is removed.
CREATE TABLE swaps (
	operation text PRIMARY KEY REFERENCES operations (name) ON DELETE CASCADE,
	source_timeline text NOT NULL,
	source_time timestamptz,
	source_lsn pg_lsn,
	timeline text NOT NULL UNIQUE CHECK (timeline ~ '^[0-9a-f]{32}$'),
	replaced text NOT NULL,
	kept_as text,
	swapped boolean NOT NULL DEFAULT false
);
