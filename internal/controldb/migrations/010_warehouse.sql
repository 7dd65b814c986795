-- Statements that warehouses ran, by who asked. One that has not ended has no row.
CREATE TABLE sql_statements (
	id text PRIMARY KEY,
	principal text NOT NULL,
	statement text NOT NULL,
	kind text NOT NULL,
	state text NOT NULL,
	error text NOT NULL,
	submitted timestamptz NOT NULL,
	begun timestamptz,
	ended timestamptz NOT NULL,
	row_count bigint NOT NULL,
	byte_count bigint NOT NULL
);
CREATE INDEX sql_statements_submitted ON sql_statements (submitted DESC, id);
