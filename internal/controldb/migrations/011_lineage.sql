-- Where the rows of tables came from. Tables are known by their names, which may
-- be those of tables that are gone; pipeline '' is statements.
CREATE TABLE lineage (
	source_catalog text NOT NULL,
	source_schema text NOT NULL,
	source_name text NOT NULL,
	target_catalog text NOT NULL,
	target_schema text NOT NULL,
	target_name text NOT NULL,
	kind text NOT NULL,
	pipeline text NOT NULL,
	run text NOT NULL, -- the newest update or statement
	principal text NOT NULL, -- of it
	columns jsonb NOT NULL, -- [{"s": source column, "t": target column}, …]
	first timestamptz NOT NULL DEFAULT now(),
	last timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (target_catalog, target_schema, target_name, source_catalog, source_schema, source_name, kind, pipeline)
);
CREATE INDEX lineage_source ON lineage (source_catalog, source_schema, source_name);
