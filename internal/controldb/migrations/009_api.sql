-- What a deletion without purge leaves: hidden until it is brought back, and
-- removed at purge. The branches of a deleted project have the project's time.
ALTER TABLE projects
	ADD COLUMN deleted timestamptz,
	ADD COLUMN purge timestamptz,
	ADD CHECK ((deleted IS NULL) = (purge IS NULL));
ALTER TABLE branches
	ADD COLUMN purge timestamptz,
	ADD CHECK (purge IS NULL OR state = 'DELETED');
CREATE INDEX projects_purge ON projects (purge) WHERE purge IS NOT NULL;
CREATE INDEX branches_purge ON branches (purge) WHERE purge IS NOT NULL;

ALTER TABLE operations DROP CONSTRAINT operations_verb_check;
ALTER TABLE operations ADD CONSTRAINT operations_verb_check
	CHECK (verb IN ('create', 'update', 'delete', 'undelete', 'restore', 'reset'));

-- Instances of the Provisioned API that were made from another one: branches of
-- its project. parent, branch_time and lsn are what was asked.
CREATE TABLE child_instances (
	name text PRIMARY KEY,
	project text NOT NULL,
	branch text NOT NULL,
	parent text NOT NULL,
	parent_uid text NOT NULL,
	branch_time timestamptz,
	lsn pg_lsn,
	creator text NOT NULL,
	custom_tags jsonb NOT NULL,
	capacity text NOT NULL,
	node_count int NOT NULL,
	readable boolean NOT NULL,
	usage_policy text NOT NULL,
	UNIQUE (project, branch),
	FOREIGN KEY (project, branch) REFERENCES branches (project, name) ON UPDATE CASCADE ON DELETE CASCADE
);

-- Postgres tables that were given a name of the catalog.
CREATE TABLE database_tables (
	catalog text NOT NULL,
	schema text NOT NULL,
	name text NOT NULL,
	project text NOT NULL,
	branch text NOT NULL,
	database text NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (catalog, schema, name),
	FOREIGN KEY (project, branch) REFERENCES branches (project, name) ON UPDATE CASCADE ON DELETE CASCADE
);

-- What is asked of the Data API of a database, by the database's id.
CREATE TABLE data_apis (
	project text NOT NULL,
	branch text NOT NULL,
	database text NOT NULL,
	uid text NOT NULL,
	spec jsonb NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	updated timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (project, branch, database),
	FOREIGN KEY (project, branch) REFERENCES branches (project, name) ON UPDATE CASCADE ON DELETE CASCADE
);

-- When snapshots of a branch are taken by themselves; next is when that is due.
CREATE TABLE snapshot_schedules (
	project text NOT NULL,
	branch text NOT NULL,
	cadences jsonb NOT NULL,
	next timestamptz NOT NULL,
	PRIMARY KEY (project, branch),
	FOREIGN KEY (project, branch) REFERENCES branches (project, name) ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE INDEX snapshot_schedules_next ON snapshot_schedules (next);
