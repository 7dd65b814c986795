-- Principals: what SCIM says of them beside their name. A password is an argon2id
-- hash in PHC form; NULL = none, then the person signs in with a token.
ALTER TABLE principals
	ADD COLUMN display_name text NOT NULL DEFAULT '',
	ADD COLUMN external_id text NOT NULL DEFAULT '',
	ADD COLUMN disabled boolean NOT NULL DEFAULT false,
	ADD COLUMN entitlements text[] NOT NULL DEFAULT '{}',
	ADD COLUMN password text,
	ADD COLUMN updated timestamptz NOT NULL DEFAULT now();

-- The groups every workspace has: the first makes admins, everybody is in the second.
INSERT INTO principals (id, name, type, admin) OVERRIDING SYSTEM VALUE
	VALUES (1, 'admins', 'GROUP', true), (2, 'users', 'GROUP', false) ON CONFLICT DO NOTHING;

CREATE TABLE members (
	group_id bigint NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
	member_id bigint NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
	PRIMARY KEY (group_id, member_id),
	CHECK (group_id <> member_id)
);
CREATE INDEX members_member ON members (member_id);
INSERT INTO members SELECT 1, id FROM principals WHERE admin AND type <> 'GROUP';
UPDATE principals SET admin = false WHERE type <> 'GROUP';

-- Secrets of service principals: SHA-256 of 256 random bits.
CREATE TABLE client_secrets (
	id text PRIMARY KEY,
	principal bigint NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
	hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
	created timestamptz NOT NULL DEFAULT now(),
	expires timestamptz
);
CREATE INDEX client_secrets_principal ON client_secrets (principal);

-- Tokens of other issuers that are exchanged for ours. principal NULL = for
-- whoever the token's subject names.
CREATE TABLE federation_policies (
	id text PRIMARY KEY,
	principal bigint REFERENCES principals (id) ON DELETE CASCADE,
	description text NOT NULL,
	issuer text NOT NULL,
	audiences text[] NOT NULL,
	subject text NOT NULL,
	subject_claim text NOT NULL,
	jwks_uri text NOT NULL,
	jwks_json text NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	updated timestamptz NOT NULL DEFAULT now()
);

-- A sign-in under way in a browser: from the request to authorize, over the code
-- it ends with, to the code's one use. Every secret is kept as its SHA-256.
CREATE TABLE authorizations (
	id bytea PRIMARY KEY CHECK (octet_length(id) = 32),
	cookie bytea NOT NULL CHECK (octet_length(cookie) = 32),
	client text NOT NULL,
	redirect_uri text NOT NULL,
	scopes text[] NOT NULL,
	state text NOT NULL,
	challenge text NOT NULL,
	code bytea UNIQUE,
	principal bigint REFERENCES principals (id) ON DELETE CASCADE,
	family text,
	expires timestamptz NOT NULL
);
CREATE INDEX authorizations_expires ON authorizations (expires);

CREATE TABLE devices (
	code bytea PRIMARY KEY CHECK (octet_length(code) = 32),
	user_code text NOT NULL UNIQUE,
	client text NOT NULL,
	scopes text[] NOT NULL,
	state text NOT NULL CHECK (state IN ('PENDING', 'GRANTED', 'DENIED')),
	principal bigint REFERENCES principals (id) ON DELETE CASCADE,
	polled timestamptz,
	expires timestamptz NOT NULL
);
CREATE INDEX devices_expires ON devices (expires);

-- A family is all refresh tokens that came of one sign-in. Only the newest is
-- good; an older one that is used again ends the family.
CREATE TABLE refresh_tokens (
	hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
	family text NOT NULL,
	principal bigint NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
	client text NOT NULL,
	scopes text[] NOT NULL,
	created timestamptz NOT NULL DEFAULT now(),
	used timestamptz,
	expires timestamptz NOT NULL
);
CREATE INDEX refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX refresh_tokens_expires ON refresh_tokens (expires);

-- Access tokens and families that were revoked before their time, until the
-- last token they could mean is over.
CREATE TABLE revoked (
	id text PRIMARY KEY,
	expires timestamptz NOT NULL
);
CREATE INDEX revoked_expires ON revoked (expires);

CREATE TABLE permissions (
	project text NOT NULL REFERENCES projects (name) ON UPDATE CASCADE ON DELETE CASCADE,
	principal bigint NOT NULL REFERENCES principals (id) ON DELETE CASCADE,
	level text NOT NULL CHECK (level IN ('CAN_CREATE', 'CAN_USE', 'CAN_MANAGE')),
	PRIMARY KEY (project, principal)
);
CREATE INDEX permissions_principal ON permissions (principal);
