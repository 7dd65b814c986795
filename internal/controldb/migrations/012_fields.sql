-- Fields of the published spec of a synced table that are kept as they came.
ALTER TABLE synced_tables ADD COLUMN asked jsonb NOT NULL DEFAULT '{}';
