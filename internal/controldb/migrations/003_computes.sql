-- How long a compute runs without a client statement before it is frozen; a
-- negative time is never.
ALTER TABLE endpoints ADD COLUMN freeze_after interval NOT NULL DEFAULT '1 minute';
ALTER TABLE projects ADD COLUMN endpoint_freeze_after interval NOT NULL DEFAULT '1 minute';

-- Networks from which clients may connect to a project; none = all.
ALTER TABLE projects ADD COLUMN allowed cidr[] NOT NULL DEFAULT '{}';
