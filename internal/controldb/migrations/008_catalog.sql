-- Catalogs, schemas and tables as objects with owners; what was granted on
-- them; and rows on their way into the catalog system.
-- An owner that is NULL is the admins of the workspace.

ALTER TABLE catalogs
	ADD id text NOT NULL DEFAULT gen_random_uuid()::text,
	ADD owner text REFERENCES principals (name) ON UPDATE CASCADE ON DELETE SET NULL,
	ADD comment text NOT NULL DEFAULT '',
	ADD properties jsonb NOT NULL DEFAULT '{}',
	ADD created_by text NOT NULL DEFAULT '',
	ADD updated timestamptz NOT NULL DEFAULT now(),
	ADD updated_by text NOT NULL DEFAULT '';

ALTER TABLE schemas
	ADD id text NOT NULL DEFAULT gen_random_uuid()::text,
	ADD owner text REFERENCES principals (name) ON UPDATE CASCADE ON DELETE SET NULL,
	ADD comment text NOT NULL DEFAULT '',
	ADD properties jsonb NOT NULL DEFAULT '{}',
	ADD created_by text NOT NULL DEFAULT '',
	ADD updated timestamptz NOT NULL DEFAULT now(),
	ADD updated_by text NOT NULL DEFAULT '';

-- A managed table lies in a folder of its catalog; an external one where it was
-- said to lie. A dropped table does not keep its schema from being deleted.
ALTER TABLE tables
	ADD managed boolean NOT NULL DEFAULT false,
	ADD properties jsonb NOT NULL DEFAULT '{}',
	ADD created_by text NOT NULL DEFAULT '',
	ADD updated_by text NOT NULL DEFAULT '',
	ALTER owner DROP NOT NULL,
	DROP CONSTRAINT tables_catalog_schema_fkey;
UPDATE tables t SET managed = true FROM catalogs c WHERE c.name = t.catalog AND starts_with(t.location, c.root || '/');
UPDATE tables SET owner = NULL WHERE NOT EXISTS (SELECT FROM principals p WHERE p.name = tables.owner);
ALTER TABLE tables ADD FOREIGN KEY (owner) REFERENCES principals (name) ON UPDATE CASCADE ON DELETE SET NULL;

-- On whom and what: catalog '' is the metastore, schema '' a catalog, name '' a
-- schema. The names of a registered database's tables are its own, so no
-- foreign key holds them.
CREATE TABLE grants (
	catalog text NOT NULL,
	schema text NOT NULL,
	name text NOT NULL,
	principal bigint NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
	privilege text NOT NULL,
	grantor text NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	PRIMARY KEY (catalog, schema, name, principal, privilege)
);
CREATE INDEX grants_principal ON grants (principal);

-- What was granted on a name goes with the thing, by whatever way that goes: a
-- registered catalog with its branch, a synced table with its keeper's row.
CREATE FUNCTION forget_grants() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	o jsonb := to_jsonb(OLD);
	c text; s text; t text;
BEGIN
	CASE TG_TABLE_NAME
		WHEN 'schemas' THEN c := o->>'catalog'; s := o->>'name';
		WHEN 'synced_tables', 'tables' THEN c := o->>'catalog'; s := o->>'schema'; t := o->>'name';
		ELSE c := o->>'name';
	END CASE;
	DELETE FROM grants WHERE catalog = c AND (s IS NULL OR schema = s) AND (t IS NULL OR name = t);
	RETURN NULL;
END $$;
CREATE TRIGGER forget_grants AFTER DELETE ON catalogs FOR EACH ROW EXECUTE FUNCTION forget_grants();
CREATE TRIGGER forget_grants AFTER DELETE ON schemas FOR EACH ROW EXECUTE FUNCTION forget_grants();
CREATE TRIGGER forget_grants AFTER DELETE ON registered_catalogs FOR EACH ROW EXECUTE FUNCTION forget_grants();
CREATE TRIGGER forget_grants AFTER DELETE ON synced_tables FOR EACH ROW EXECUTE FUNCTION forget_grants();
CREATE TRIGGER forget_grants AFTER UPDATE OF dropped ON tables FOR EACH ROW
	WHEN (OLD.dropped IS NULL AND NEW.dropped IS NOT NULL) EXECUTE FUNCTION forget_grants();

-- Rows of the tables of catalog system until their Delta commit. A batch is
-- what one commit holds; its number stands in the commit too.
CREATE TABLE system_rows (
	seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	target text NOT NULL, -- schema.table
	batch bigint,
	row jsonb NOT NULL
);
CREATE INDEX system_rows_target ON system_rows (target, batch);
