-- A registered database: a catalog that shows it. objects is what stood in it
-- when it was last awake.
CREATE TABLE registered_catalogs (
	name text PRIMARY KEY,
	uid text NOT NULL UNIQUE,
	project text NOT NULL,
	branch text NOT NULL,
	database text NOT NULL,
	objects jsonb NOT NULL DEFAULT '[]',
	created timestamptz NOT NULL DEFAULT now(),
	updated timestamptz NOT NULL DEFAULT now(),
	UNIQUE (project, branch, database),
	FOREIGN KEY (project, branch) REFERENCES branches (project, name) ON UPDATE CASCADE ON DELETE CASCADE
);
