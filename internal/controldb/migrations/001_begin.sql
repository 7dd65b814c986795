-- One workspace per database. Its block is where its endpoints' loopback
-- addresses begin; last_address is how many were ever handed out.
CREATE TABLE workspace (
	one boolean PRIMARY KEY DEFAULT true CHECK (one),
	id bigint NOT NULL CHECK (id > 0),
	owner text NOT NULL,
	block smallint NOT NULL CHECK (block >= 0),
	last_address int NOT NULL DEFAULT 0,
	created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE principals (
	id bigint GENERATED ALWAYS AS IDENTITY (START WITH 1001) PRIMARY KEY,
	name text NOT NULL UNIQUE,
	type text NOT NULL CHECK (type IN ('USER', 'SERVICE_PRINCIPAL', 'GROUP')),
	admin boolean NOT NULL,
	created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tokens (
	id text PRIMARY KEY,
	hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
	comment text NOT NULL,
	owner text NOT NULL REFERENCES principals (name) ON UPDATE CASCADE ON DELETE CASCADE,
	created timestamptz NOT NULL DEFAULT now(),
	expires timestamptz
);

CREATE TABLE signing_keys (
	id text PRIMARY KEY,
	created timestamptz NOT NULL,
	pkcs8 bytea NOT NULL
);

CREATE TABLE projects (
	name text PRIMARY KEY,
	uid text NOT NULL UNIQUE,
	owner text NOT NULL,
	display_name text NOT NULL,
	pg_version int NOT NULL,
	history interval NOT NULL,
	custom_tags jsonb NOT NULL,
	disable_native_login boolean NOT NULL,
	-- defaults of new endpoints
	endpoint_min_cu float8 NOT NULL,
	endpoint_max_cu float8 NOT NULL,
	endpoint_suspend_after interval NOT NULL,
	endpoint_settings jsonb NOT NULL,
	-- what only the Provisioned API says
	capacity text NOT NULL,
	node_count int NOT NULL,
	readable boolean NOT NULL,
	stopped boolean NOT NULL,
	usage_policy text NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	updated timestamptz NOT NULL DEFAULT now()
);

-- A branch in state DELETED is on its way out: whoever holds something of it
-- drops its hold, then the row goes.
CREATE TABLE branches (
	project text NOT NULL REFERENCES projects (name) ON UPDATE CASCADE,
	name text NOT NULL,
	uid text NOT NULL UNIQUE,
	source text,
	source_time timestamptz,
	source_lsn pg_lsn,
	expires timestamptz,
	protected boolean NOT NULL,
	is_default boolean NOT NULL,
	state text NOT NULL CHECK (state IN ('INIT', 'READY', 'RESETTING', 'DELETED')),
	state_changed timestamptz NOT NULL DEFAULT now(),
	timeline text NOT NULL UNIQUE CHECK (timeline ~ '^[0-9a-f]{32}$'),
	logical_bytes bigint NOT NULL DEFAULT 0,
	message text NOT NULL DEFAULT '',
	created timestamptz NOT NULL DEFAULT now(),
	updated timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (project, name),
	FOREIGN KEY (project, source) REFERENCES branches (project, name) ON UPDATE CASCADE
);
CREATE UNIQUE INDEX branches_default ON branches (project) WHERE is_default;
CREATE INDEX branches_source ON branches (project, source);
CREATE INDEX branches_expires ON branches (expires) WHERE expires IS NOT NULL;

CREATE TABLE endpoints (
	project text NOT NULL,
	branch text NOT NULL,
	name text NOT NULL,
	uid text NOT NULL UNIQUE,
	type text NOT NULL CHECK (type IN ('ENDPOINT_TYPE_READ_WRITE', 'ENDPOINT_TYPE_READ_ONLY')),
	min_cu float8 NOT NULL,
	max_cu float8 NOT NULL,
	suspend_after interval NOT NULL,
	disabled boolean NOT NULL,
	settings jsonb NOT NULL,
	host text NOT NULL UNIQUE,
	last_active timestamptz,
	created timestamptz NOT NULL DEFAULT now(),
	updated timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (project, branch, name),
	FOREIGN KEY (project, branch) REFERENCES branches (project, name) ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE UNIQUE INDEX endpoints_read_write ON endpoints (project, branch) WHERE type = 'ENDPOINT_TYPE_READ_WRITE';

-- Operations outlive what they worked on, so that who waits for a deletion
-- sees its end.
CREATE TABLE operations (
	name text PRIMARY KEY,
	seq bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
	verb text NOT NULL CHECK (verb IN ('create', 'update', 'delete')),
	target text NOT NULL,
	done boolean NOT NULL DEFAULT false,
	error_kind smallint NOT NULL DEFAULT 0,
	error text NOT NULL DEFAULT '',
	attempts int NOT NULL DEFAULT 0,
	next_try timestamptz NOT NULL DEFAULT now(),
	created timestamptz NOT NULL DEFAULT now(),
	updated timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX operations_open ON operations (seq) WHERE NOT done;

CREATE TABLE catalogs (
	name text PRIMARY KEY,
	root text NOT NULL,
	created timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE schemas (
	catalog text NOT NULL REFERENCES catalogs (name),
	name text NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (catalog, name)
);

-- A dropped table keeps its row, because its files stay: no new table may be
-- given the same folder.
CREATE TABLE tables (
	id text PRIMARY KEY,
	catalog text NOT NULL,
	schema text NOT NULL,
	name text NOT NULL,
	location text NOT NULL,
	owner text NOT NULL,
	comment text NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	updated timestamptz NOT NULL DEFAULT now(),
	dropped timestamptz,
	FOREIGN KEY (catalog, schema) REFERENCES schemas (catalog, name)
);
CREATE UNIQUE INDEX tables_name ON tables (catalog, schema, name) WHERE dropped IS NULL;
CREATE INDEX tables_location ON tables (location);

CREATE TABLE synced_tables (
	uid text PRIMARY KEY,
	catalog text NOT NULL,
	schema text NOT NULL,
	name text NOT NULL,
	source_catalog text NOT NULL,
	source_schema text NOT NULL,
	source_table text NOT NULL,
	primary_key text[] NOT NULL,
	policy text NOT NULL,
	project text NOT NULL,
	branch text NOT NULL,
	database text NOT NULL,
	new_pipeline_catalog text NOT NULL,
	new_pipeline_schema text NOT NULL,
	pipeline_id text NOT NULL,
	state text NOT NULL,
	message text NOT NULL,
	version bigint NOT NULL,
	version_ts timestamptz,
	rows_synced bigint NOT NULL,
	rows_total bigint NOT NULL,
	sync_start timestamptz,
	sync_end timestamptz,
	created timestamptz NOT NULL DEFAULT now(),
	updated timestamptz NOT NULL DEFAULT now(),
	UNIQUE (catalog, schema, name),
	-- two synced tables must not write one Postgres table
	UNIQUE (project, branch, database, schema, name),
	FOREIGN KEY (project, branch) REFERENCES branches (project, name) ON UPDATE CASCADE
);

CREATE TABLE feeds (
	uid text PRIMARY KEY,
	project text NOT NULL,
	branch text NOT NULL,
	id text NOT NULL,
	database text NOT NULL,
	postgres_schema text NOT NULL,
	catalog text NOT NULL,
	schema text NOT NULL,
	message text NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	UNIQUE (project, branch, id),
	UNIQUE (project, branch, database, postgres_schema),
	FOREIGN KEY (project, branch) REFERENCES branches (project, name) ON UPDATE CASCADE
);

CREATE TABLE feed_tables (
	feed text NOT NULL REFERENCES feeds (uid) ON DELETE CASCADE,
	postgres_table text NOT NULL,
	target_catalog text NOT NULL,
	target_schema text NOT NULL,
	target_table text NOT NULL,
	state text NOT NULL,
	committed_lsn pg_lsn,
	last_sync timestamptz,
	detail text NOT NULL,
	PRIMARY KEY (feed, postgres_table)
);
