-- Networks from which clients may connect to a project; none = all.
ALTER TABLE projects ADD COLUMN allowed cidr[] NOT NULL DEFAULT '{}';
